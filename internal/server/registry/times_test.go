package registry_test

import (
	"reflect"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// Times that a program in this process writes are read as they would be by any other: as they are stored.
func TestTimesAreReadAsTheyAreStored(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	long := time.Now().Add(-time.Hour).Truncate(time.Second).Add(123456789 * time.Nanosecond)
	stamp := metav1.NewTime(long)
	micro := metav1.NewMicroTime(long)
	check := func(res *api.Resource, name string) api.Object {
		t.Helper()
		rev, err := r.Get(t.Context(), res, key(name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := res.Encode(rev.Object.(api.Object))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := res.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range pairs(rev.Object, stored) {
			if *at[0] != *at[1] {
				t.Errorf("%s %s is read as %v, and stored as %v", res.Kind, name, at[0], at[1])
			}
		}
		return rev.Object.(api.Object)
	}

	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "l"}, Spec: coordinationv1.LeaseSpec{RenewTime: &micro}}
	clienttest.Create(t, c, lease)
	if got := check(api.Leases, "l").(*coordinationv1.Lease).Spec.RenewTime.Nanosecond(); got != 123456000 {
		t.Errorf("renewTime has %d ns, want whole microseconds", got)
	}

	clienttest.Create(t, c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	rev, err := r.Get(t.Context(), api.Pods, key("p"))
	if err != nil {
		t.Fatal(err)
	}
	pod := rev.Object.(*corev1.Pod).DeepCopy()
	pod.Status.StartTime = &stamp
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: stamp}}
	running := &corev1.ContainerStateRunning{StartedAt: metav1.Now()} // with a reading of the monotonic clock
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: "i", State: corev1.ContainerState{Running: running}}}
	conditions, began := pod.Status.Conditions, running.StartedAt
	if res := r.UpdateMany(t.Context(), api.Pods, []api.Object{pod}, "status"); res[0].Err != nil {
		t.Fatal(res[0].Err)
	}
	got := check(api.Pods, "p").(*corev1.Pod)
	if got.Status.StartTime.Nanosecond() != 0 || got.Status.Conditions[0].LastTransitionTime.Nanosecond() != 0 {
		t.Errorf("times of a pod's status: %+v", got.Status)
	}
	// What is below the object's first level may be shared with others.
	if stamp.Time != long || conditions[0].LastTransitionTime.Time != long || running.StartedAt != began {
		t.Error("the writer's own times were changed")
	}

	// The same again changes nothing.
	again := got.DeepCopy()
	again.Status.StartTime = &stamp
	out, _, err := r.Update(t.Context(), api.Pods, key("p"), "status", func(api.Object) (api.Object, error) { return again, nil }, registry.UpdateOptions{})
	if err != nil || out.GetResourceVersion() != got.ResourceVersion {
		t.Errorf("the same status written again: %v, %v", out.GetResourceVersion(), err)
	}
}

// pairs returns the times in two values of one type.
func pairs(a, b any) [][2]*time.Time {
	var out [][2]*time.Time
	var walk func(a, b reflect.Value)
	walk = func(a, b reflect.Value) {
		switch {
		case a.Type() == reflect.TypeFor[time.Time]():
			out = append(out, [2]*time.Time{a.Addr().Interface().(*time.Time), b.Addr().Interface().(*time.Time)})
		case a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
			walk(a.Elem(), b.Elem())
		case a.Kind() == reflect.Slice:
			for i := range min(a.Len(), b.Len()) {
				walk(a.Index(i), b.Index(i))
			}
		case a.Kind() == reflect.Struct:
			for i := range a.NumField() {
				if a.Type().Field(i).IsExported() {
					walk(a.Field(i), b.Field(i))
				}
			}
		}
	}
	walk(reflect.ValueOf(a), reflect.ValueOf(b))
	return out
}

func BenchmarkUpdateOfATime(b *testing.B) {
	c, r := clienttest.NewRegistry(b)
	clienttest.Create(b, c, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "l"}})
	for b.Loop() {
		_, _, err := r.Update(b.Context(), api.Leases, key("l"), "", func(o api.Object) (api.Object, error) {
			l := o.DeepCopyObject().(*coordinationv1.Lease)
			now := metav1.NewMicroTime(time.Now())
			l.Spec.RenewTime = &now
			return l, nil
		}, registry.UpdateOptions{})
		if err != nil {
			b.Fatal(err)
		}
	}
}
