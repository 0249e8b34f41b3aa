package claims

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReserve(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", UID: "uid-p"}}
	at := time.Unix(9, 0)
	free := func(change func(*resourcev1.ResourceClaim)) *resourcev1.ResourceClaim {
		c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
		if change != nil {
			change(c)
		}
		return c
	}
	allocated := func(c *resourcev1.ResourceClaim) {
		c.Finalizers, c.Status.Allocation = []string{resourcev1.Finalizer}, &resourcev1.AllocationResult{}
	}
	mine := func(c *resourcev1.ResourceClaim) {
		allocated(c)
		c.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "uid-p"}}
	}
	gets := &resourcev1.AllocationResult{}
	for _, tc := range []struct {
		name  string
		claim Claim
		have  *resourcev1.ResourceClaim
		why   string
		users int // of the result; 0: there is none
	}{
		{"it gets devices", Claim{UID: "u", Allocation: gets}, free(nil), "", 1},
		{"it has devices", Claim{UID: "u"}, free(allocated), "", 1},
		{"and the pod uses them", Claim{UID: "u"}, free(mine), "", 0},
		{"another claim of its name", Claim{UID: "v", Allocation: gets}, free(nil), "is another one by now", 0},
		{"on its way out", Claim{UID: "u", Allocation: gets}, free(func(c *resourcev1.ResourceClaim) { c.DeletionTimestamp = &metav1.Time{} }), "got deleted in the meantime", 0},
		{"somebody else was first", Claim{UID: "u", Allocation: gets}, free(allocated), "got allocated elsewhere in the meantime", 0},
		{"its devices were given back", Claim{UID: "u"}, free(nil), "got deallocated elsewhere in the meantime", 0},
	} {
		before := tc.have.DeepCopy()
		next, why := tc.claim.Reserve(tc.have, pod, at)
		if why != tc.why || (next != nil) != (tc.users > 0) {
			t.Errorf("%s: %v %q", tc.name, next, why)
			continue
		}
		if next == nil {
			continue
		}
		if len(next.Status.ReservedFor) != tc.users || len(next.Finalizers) != 1 || tc.claim.Allocation != nil && !next.Status.Allocation.AllocationTimestamp.Time.Equal(at) {
			t.Errorf("%s: %v %+v", tc.name, next.Finalizers, next.Status)
		}
		if len(before.Status.ReservedFor) != len(tc.have.Status.ReservedFor) || len(before.Finalizers) != len(tc.have.Finalizers) {
			t.Errorf("%s: the stored claim was changed", tc.name)
		}
	}
}
