package network

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/network/nettest"
)

func TestPodsReachEverything(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	w.mustAsk("pod to pod", a.ns, b.addr.String()+":8080", "b", a.addr.String())
	w.mustAsk("pod to itself", a.ns, a.addr.String()+":8080", "a", a.addr.String())
	w.mustAsk("pod to itself by loopback", a.ns, "127.0.0.1:8080", "a", "127.0.0.1")
	w.mustAsk("node to pod", nil, b.addr.String()+":8080", "b", nodeIP.String())

	outside := &pod{w: w, name: "outside", ns: w.outside}
	outside.serve()
	w.mustAsk("pod to the world, with the node's address", a.ns, outsideIP.String()+":8080", "outside", nodeIP.String())

	if _, err := a.cni("CHECK", nil); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if _, err := a.cni("STATUS", nil); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	link := strings.Fields(ip(t, "-o", "link", "show", "type", "veth"))
	if len(link) == 0 {
		t.Fatal("no veth links at all")
	}
	for _, p := range []*pod{a, b} {
		for range 2 { // the runtime may call DEL again
			if _, err := p.cni("DEL", nil); err != nil {
				t.Errorf("DEL: %v", err)
			}
		}
		if _, err := p.cni("CHECK", nil); err == nil {
			t.Errorf("CHECK after DEL succeeded")
		}
	}
	if links := ip(t, "-o", "link"); strings.Contains(links, " kn") {
		t.Errorf("links left after DEL:\n%s", links)
	}
	if routes := ip(t, "route"); strings.Contains(routes, "10.244") {
		t.Errorf("routes left after DEL:\n%s", routes)
	}
	if files, _ := os.ReadDir(filepath.Join(w.dir, "network", "ipam")); len(files) != 0 {
		t.Errorf("%d address files left after DEL", len(files))
	}
}
