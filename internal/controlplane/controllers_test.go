package controlplane

import (
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

func TestNoTwoControllersSetTheSameField(t *testing.T) {
	p := &Plane{cfg: Config{Name: "a", ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		Sign: func([]byte, x509.KeyUsage, []x509.ExtKeyUsage, time.Duration) ([]byte, error) { return nil, nil }}}
	all := p.controllers(clienttest.New(t))
	if len(all) < 20 {
		t.Fatalf("only %d controllers", len(all))
	}
	for _, c := range all {
		if len(c.Writes) == 0 {
			t.Errorf("controller %s does not declare what it writes", c.Name)
		}
	}
	controllertest.CheckOverlaps(t, all)
}
