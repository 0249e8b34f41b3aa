// Package claims says what binding a pod does to its ResourceClaims (KEP-4381).
//
// What flows through it: the front door hands over a claim as it is and what was decided about it, and stores what [Claim.Reserve] makes of
// it in the transaction of the binding. What must stay true: a claim that is no longer as it was when it was decided is left alone
// (TestReserve), so that no pod is bound without its devices and no claim has devices for a pod that is not bound (TestClaimsGoWithTheirPods in internal/server/registry).
package claims

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Claim is what becomes of a ResourceClaim of a pod: it gets Allocation, or has devices already where that is nil, and the pod becomes one
// of its users.
type Claim struct {
	Key        types.NamespacedName
	UID        string
	Allocation *resourcev1.AllocationResult
}

// Reserve returns the claim with its allocation, as of now, and pod as one more user; nil if that is what it has. why says why the claim, as
// it is now, cannot be used as it was decided.
func (c *Claim) Reserve(have *resourcev1.ResourceClaim, pod *corev1.Pod, now time.Time) (next *resourcev1.ResourceClaim, why string) {
	switch {
	case have.UID != types.UID(c.UID):
		return nil, "is another one by now"
	case have.DeletionTimestamp != nil:
		return nil, "got deleted in the meantime"
	case c.Allocation != nil && have.Status.Allocation != nil:
		return nil, "got allocated elsewhere in the meantime"
	case c.Early(have):
		return nil, "got deallocated elsewhere in the meantime"
	}
	user := resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID}
	if c.Allocation == nil && slices.Contains(have.Status.ReservedFor, user) {
		return nil, ""
	}
	next = have.DeepCopy()
	if c.Allocation != nil {
		// It keeps the claim until the devices are given back.
		if !slices.Contains(next.Finalizers, resourcev1.Finalizer) {
			next.Finalizers = append(next.Finalizers, resourcev1.Finalizer)
		}
		next.Status.Allocation = c.Allocation.DeepCopy()
		next.Status.Allocation.AllocationTimestamp = &metav1.Time{Time: now}
	}
	next.Status.ReservedFor = append(next.Status.ReservedFor, user)
	return next, ""
}

// Early reports whether the claim is to have devices already, and has none: another pod of the same batch may bring them.
func (c *Claim) Early(have *resourcev1.ResourceClaim) bool {
	return c.Allocation == nil && have.Status.Allocation == nil
}
