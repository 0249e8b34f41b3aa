package servicecidr

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func makeRange(c *ct.Cluster, name, cidr string) {
	c.T.Helper()
	ct.Make(c, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{cidr}}})
	c.Settle()
}

// service is a Service with the address ip, or "" for one that it is given.
func service(name, ip string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80}}}}
}

// ready shows status and reason of a range's condition.
func ready(c *ct.Cluster, name string) string {
	c.T.Helper()
	r := ct.Get[*networkingv1.ServiceCIDR](c, "", name)
	if cond := apimeta.FindStatusCondition(r.Status.Conditions, "Ready"); cond != nil {
		return string(cond.Status) + " " + cond.Reason
	}
	return "none"
}

func deleteRange(c *ct.Cluster, name string) {
	c.T.Helper()
	ct.Delete[*networkingv1.ServiceCIDR](c, "", name, metav1.DeleteOptions{})
	c.Settle()
}

func TestAddressesOfAFurtherRangeAreGivenOut(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeRange(c, "further", "10.200.0.0/29")
		if _, err := c.Create(context.Background(), service("early", "10.200.0.1")); err == nil {
			t.Error("an address was given out of a range that nobody said is ready")
		}
		c.Start(New(c.Client))
		c.Settle()
		r := ct.Get[*networkingv1.ServiceCIDR](c, "", "further")
		if ready(c, "further") != "True " || len(r.Finalizers) != 1 || r.Finalizers[0] != "networking.k8s.io/service-cidr-finalizer" {
			t.Fatalf("condition %q, finalizers %v", ready(c, "further"), r.Finalizers)
		}
		ct.Make(c, service("web", "10.200.0.1"))
		if ct.Gone[*networkingv1.IPAddress](c, "", "10.200.0.1") {
			t.Error("the address has no IPAddress")
		}
		if _, err := c.Create(context.Background(), service("beyond", "10.200.0.9")); err == nil {
			t.Error("an address beyond the range was given out")
		}
	})
}

func TestARangeWaitsForItsAddresses(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		makeRange(c, "further", "10.200.0.0/24")
		ct.Make(c, service("web", "10.200.0.1"))
		deleteRange(c, "further")
		c.Pass(time.Hour)
		if got := ready(c, "further"); got != "False Terminating" {
			t.Errorf("with an address in use: %s", got)
		}
		if _, err := c.Create(context.Background(), service("late", "10.200.0.2")); err == nil {
			t.Error("a range that is being deleted gives out addresses")
		}
		ct.Delete[*corev1.Service](c, "default", "web", metav1.DeleteOptions{})
		c.Settle()
		if !ct.Gone[*networkingv1.ServiceCIDR](c, "", "further") {
			t.Error("the range is still there after its last address")
		}
	})
}

func TestAnotherRangeTakesTheAddressesOver(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		makeRange(c, "further", "10.200.0.0/24")
		ct.Make(c, service("web", "10.200.0.1"))
		deleteRange(c, "further")
		if got := ready(c, "further"); got != "False Terminating" {
			t.Fatalf("with an address in use: %s", got)
		}
		makeRange(c, "wider", "10.200.0.0/16")
		c.Pass(9 * time.Second)
		if ct.Gone[*networkingv1.ServiceCIDR](c, "", "further") {
			t.Error("the range went at once; other servers may still give its addresses away")
		}
		c.Pass(2 * time.Second)
		if !ct.Gone[*networkingv1.ServiceCIDR](c, "", "further") {
			t.Error("the range is still there though a wider one has its addresses")
		}
	})
}
