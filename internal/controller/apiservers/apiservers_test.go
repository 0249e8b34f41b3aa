package apiservers

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

// listed is what clients read: addresses by EndpointSlice and port, and those of the older form.
func listed(t *testing.T, c client.Client) (out string) {
	t.Helper()
	list, err := client.List[*discoveryv1.EndpointSlice](t.Context(), c, client.ListOptions{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		out += s.Name + ":" + netip.AddrPortFrom(netip.AddrFrom4([4]byte{}), uint16(*s.Ports[0].Port)).String()[8:]
		for _, e := range s.Endpoints {
			out += " " + e.Addresses[0]
		}
		out += "; "
	}
	e, err := client.Get[*corev1.Endpoints](t.Context(), c, serviceKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range e.Subsets {
		for _, a := range s.Addresses {
			out += a.IP + " "
		}
	}
	return out
}

func TestServersComeAndGo(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		t := c.T
		for _, ns := range []string{"default", "kube-system"} {
			if _, err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
		var several atomic.Bool
		var wg sync.WaitGroup
		register := func(name, address string) context.CancelFunc {
			ctx, cancel := context.WithCancel(context.Background())
			wg.Go(func() {
				_ = Register(ctx, c, Server{Name: name, Address: netip.MustParseAddrPort(address), Several: several.Load, Log: slog.New(slog.DiscardHandler)})
			})
			return cancel
		}
		expect := func(when, want string) {
			t.Helper()
			synctest.Wait()
			if got := listed(t, c); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		defer wg.Wait()
		defer register("a", "192.0.2.1:6443")()
		c.Start(New(c, "a", netip.MustParseAddrPort("192.0.2.1:6443")))
		expect("one server", "kubernetes:6443 192.0.2.1; 192.0.2.1 ")
		lease, err := client.Get[*coordinationv1.Lease](t.Context(), c, LeaseKey("a"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if now, err := client.Get[*coordinationv1.Lease](t.Context(), c, LeaseKey("a")); err != nil || now.ResourceVersion != lease.ResourceVersion {
			t.Errorf("the only server renews its Lease: %v", err)
		}
		expect("one server, later", "kubernetes:6443 192.0.2.1; 192.0.2.1 ")

		several.Store(true)
		stop := register("b", "192.0.2.2:6443")
		defer register("c", "192.0.2.3:7443")()
		expect("three", "kubernetes:6443 192.0.2.1 192.0.2.2; kubernetes-7443:7443 192.0.2.3; 192.0.2.1 192.0.2.2 192.0.2.3 ")
		time.Sleep(time.Minute)
		expect("three, later", "kubernetes:6443 192.0.2.1 192.0.2.2; kubernetes-7443:7443 192.0.2.3; 192.0.2.1 192.0.2.2 192.0.2.3 ")
		stop()
		time.Sleep((leaseSeconds + 1) * time.Second)
		expect("one is lost", "kubernetes:6443 192.0.2.1; kubernetes-7443:7443 192.0.2.3; 192.0.2.1 192.0.2.3 ")
		stop = register("b", "192.0.2.9:7443")
		expect("it is back, elsewhere", "kubernetes:7443 192.0.2.3 192.0.2.9; kubernetes-6443:6443 192.0.2.1; 192.0.2.3 192.0.2.9 192.0.2.1 ")
		stop()
		if err := client.Delete[*coordinationv1.Lease](t.Context(), c, LeaseKey("b"), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("it is removed", "kubernetes:6443 192.0.2.1; kubernetes-7443:7443 192.0.2.3; 192.0.2.1 192.0.2.3 ")
	})
}

func TestNewLeaderGivesOthersTime(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	self := netip.MustParseAddrPort("192.0.2.1:6443")
	var leases []*coordinationv1.Lease
	for _, s := range []Server{{Name: "a", Address: self}, {Name: "b", Address: netip.MustParseAddrPort("192.0.2.2:6443")}} {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: LeaseKey(s.Name).Name}}
		s.fill(l, now.Add(-24*time.Hour)) // whatever the other's clock says
		leases = append(leases, l)
	}
	seen := map[string]sighting{}
	look(seen, leases, now)
	if c := count(seen, leases, self, LeaseKey("a").Name, now); len(c.addresses) != 2 || c.next != leaseSeconds*time.Second {
		t.Errorf("at first: %+v", c)
	}
	now = now.Add(leaseSeconds * time.Second)
	look(seen, leases, now)
	if c := count(seen, leases, self, LeaseKey("a").Name, now); len(c.addresses) != 1 || len(c.forgotten) != 0 {
		t.Errorf("not renewed since: %+v", c)
	}
	if c := count(seen, leases, self, LeaseKey("a").Name, now.Add(forgottenAfter)); len(c.forgotten) != 1 || c.forgotten[0] != leases[1] {
		t.Errorf("much later: %+v", c)
	}
}
