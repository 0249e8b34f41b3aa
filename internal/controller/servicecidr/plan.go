package servicecidr

import (
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deletionGrace is how long after its deletion a range stays, so that no server gives an address of it away any longer.
const deletionGrace = 10 * time.Second

// action is the next step with a ServiceCIDR.
type action struct {
	protect, release bool              // add the finalizer, or take it away
	condition        *metav1.Condition // Ready, where it is to change
	after            time.Duration     // another look is due then
}

// plan decides about cidr, which is one of all. addresses are those of Services; they matter where cidr is being deleted.
func plan(cidr *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []netip.Addr, now time.Time) action {
	protected := slices.Contains(cidr.Finalizers, finalizer)
	ready := metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Message: "Kubernetes Service CIDR is ready"}
	if cidr.DeletionTimestamp == nil {
		return action{protect: !protected, condition: changed(cidr, ready)}
	}
	if !protected {
		return action{}
	}
	if needed(cidr, all, addresses) {
		ready.Status, ready.Reason = metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating
		ready.Message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
		return action{condition: changed(cidr, ready)}
	}
	if left := cidr.DeletionTimestamp.Add(deletionGrace).Sub(now); left > 0 {
		return action{after: left}
	}
	return action{release: true}
}

// changed returns want unless cidr has that condition.
func changed(cidr *networkingv1.ServiceCIDR, want metav1.Condition) *metav1.Condition {
	have := apimeta.FindStatusCondition(cidr.Status.Conditions, want.Type)
	if have != nil && have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message {
		return nil
	}
	return &want
}

// needed reports whether one of addresses lies in cidr and in no other range that stays.
func needed(cidr *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []netip.Addr) bool {
	return slices.ContainsFunc(addresses, func(ip netip.Addr) bool {
		return contains(cidr, ip) && !slices.ContainsFunc(all, func(other *networkingv1.ServiceCIDR) bool {
			return other.Name != cidr.Name && other.DeletionTimestamp == nil && contains(other, ip)
		})
	})
}

func contains(cidr *networkingv1.ServiceCIDR, ip netip.Addr) bool {
	return slices.ContainsFunc(cidr.Spec.CIDRs, func(s string) bool {
		p, err := netip.ParsePrefix(s)
		return err == nil && p.Contains(ip)
	})
}
