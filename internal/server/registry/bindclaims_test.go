package registry_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

func deviceOf(name string) *resourcev1.AllocationResult {
	return &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
		{Request: "r", Driver: "gpu.example.com", Pool: "n1", Device: name}}}}
}

// TestClaimsGoWithTheirPods: a pod is bound with all its claims or with none, and two pods that come together both become users of one claim.
func TestClaimsGoWithTheirPods(t *testing.T) {
	ctx := context.Background()
	c := clienttest.New(t)
	clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	key := func(name string) api.Key { return api.Key{Namespace: "a", Name: name} }
	claims := map[string]*resourcev1.ResourceClaim{}
	for _, name := range []string{"mine", "shared", "late"} {
		claims[name] = clienttest.Create(t, c, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: resourcev1.ResourceClaimSpec{
			Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}}}}})
	}
	for _, name := range []string{"p", "q", "r"} {
		clienttest.Create(t, c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	}
	change := func(name string, allocation *resourcev1.AllocationResult) client.Claim {
		return client.Claim{Key: key(name), UID: string(claims[name].UID), Allocation: allocation}
	}
	bind := func(pod string, changes ...client.Claim) client.Binding {
		return client.Binding{Pod: key(pod), Node: "n1", Claims: changes}
	}
	get := func(name string) *resourcev1.ResourceClaim {
		got, err := client.Get[*resourcev1.ResourceClaim](ctx, c, key(name))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	// One of its claims is not as it was decided: nothing happens to the pod, nor to the other claim.
	for _, tc := range []struct {
		wrong client.Claim
		says  string
	}{
		{change("late", nil), "got deallocated elsewhere in the meantime"},
		{client.Claim{Key: key("late"), UID: "other", Allocation: deviceOf("c")}, "is another one by now"},
		{client.Claim{Key: key("none"), UID: "x", Allocation: deviceOf("c")}, "is gone"},
	} {
		err := c.BindMany(ctx, []client.Binding{bind("p", change("mine", deviceOf("a")), tc.wrong)})[0].Err
		if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v, want %q", err, tc.says)
		}
	}
	if err := c.BindMany(ctx, []client.Binding{bind("p", change("mine", &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
		Results: []resourcev1.DeviceRequestAllocationResult{{Request: "frog", Driver: "gpu.example.com", Pool: "n1", Device: "a"}}}}))})[0].Err; !apierrors.IsInvalid(err) {
		t.Errorf("an allocation of what the claim does not ask for: %v", err)
	}
	if got := get("mine"); got.Status.Allocation != nil || len(got.Finalizers) > 0 {
		t.Fatalf("no pod was bound, and the claim has %+v", got.Status)
	}

	results := c.BindMany(ctx, []client.Binding{bind("p", change("mine", deviceOf("a")), change("shared", deviceOf("b"))), bind("q", change("shared", nil)), bind("r")})
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("binding %d: %v", i, r.Err)
		}
	}
	for name, users := range map[string]string{"mine": "p", "shared": "p q"} {
		got := get(name)
		var by []string
		for _, u := range got.Status.ReservedFor {
			by = append(by, u.Name)
		}
		if strings.Join(by, " ") != users || got.Status.Allocation.AllocationTimestamp.IsZero() || len(got.Finalizers) != 1 || got.Finalizers[0] != resourcev1.Finalizer {
			t.Errorf("%s: users %v, %v, %+v", name, by, got.Finalizers, got.Status.Allocation)
		}
	}
	if p, m := results[0].Object.GetResourceVersion(), get("mine").ResourceVersion; p != m {
		t.Errorf("the pod is of revision %s, its claim of %s", p, m)
	}
	if err := c.BindMany(ctx, []client.Binding{bind("r", change("mine", deviceOf("a")))})[0].Err; !apierrors.IsConflict(err) {
		t.Errorf("a claim is allocated twice, to a pod that is bound: %v", err)
	}
}
