package controlplane

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

func TestBootstrapTwiceFollowsTheServer(t *testing.T) {
	c := clienttest.New(t)
	p := Params{ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443")}
	if err := Bootstrap(t.Context(), c, p); err != nil {
		t.Fatal(err)
	}
	p.API = netip.MustParseAddrPort("192.0.2.2:7443")
	if err := Bootstrap(t.Context(), c, p); err != nil {
		t.Fatal(err)
	}
	svc, err := client.Get[*corev1.Service](t.Context(), c, api.Key{Namespace: "default", Name: "kubernetes"})
	if err != nil || svc.Spec.ClusterIP != "10.96.0.1" {
		t.Errorf("the kubernetes Service: %v %+v", err, svc)
	}
	slice, err := client.Get[*discoveryv1.EndpointSlice](t.Context(), c, api.Key{Namespace: "default", Name: "kubernetes"})
	if err != nil || slice.Endpoints[0].Addresses[0] != "192.0.2.2" || *slice.Ports[0].Port != 7443 {
		t.Errorf("its endpoints: %v %+v", err, slice)
	}
	old, err := client.Get[*corev1.Endpoints](t.Context(), c, api.Key{Namespace: "default", Name: "kubernetes"})
	if err != nil || old.Subsets[0].Addresses[0].IP != "192.0.2.2" || old.Subsets[0].Ports[0].Port != 7443 {
		t.Errorf("its endpoints in the older form: %v %+v", err, old)
	}
}
