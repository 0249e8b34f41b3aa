package controllertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

func TestOverlapsOfWrites(t *testing.T) {
	status := controller.Sets(api.Pods, "status")
	ready := controller.Sets(api.Pods, "status", "conditions", "Ready")
	for _, tc := range []struct {
		a, b controller.Write
		want bool
	}{
		{status, status, true},
		{status, ready, true},
		{ready, controller.Sets(api.Pods, "status", "conditions", "DisruptionTarget"), false},
		{ready, controller.Sets(api.Nodes, "status", "conditions", "Ready"), false},
		{controller.Sets(nil, "metadata", "ownerReferences"), controller.Sets(api.Pods, "metadata", "ownerReferences"), true},
		{controller.Sets(nil, "metadata", "finalizers", "orphan"), controller.Sets(api.Pods, "metadata", "ownerReferences"), false},
		{status.Of("on nodes that are gone"), ready.Of("on tainted nodes"), false},
		{status.Of("on nodes that are gone"), ready, true},
		{controller.Deletes(api.Pods), controller.Deletes(api.Pods), false},
		{controller.Creates(api.Pods), status, false},
	} {
		if overlap(tc.a, tc.b) != tc.want || overlap(tc.b, tc.a) != tc.want {
			t.Errorf("%s, and %s: overlap is not %v", tc.a, tc.b, tc.want)
		}
	}
}

func TestChangesNameFields(t *testing.T) {
	before := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{ResourceVersion: "1", Finalizers: []string{"a"}, Labels: map[string]string{"x": "1"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: "Ready", Status: "False"}, {Type: "Old", Status: "True"}}},
	}
	after := before.DeepCopy()
	after.ResourceVersion, after.Generation = "2", 2
	after.Finalizers = nil
	after.Labels["x"] = "2"
	after.OwnerReferences = []metav1.OwnerReference{{UID: types.UID("u"), Name: "o"}}
	after.Spec.Containers[0].Image = "v2"
	after.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "True"}}
	var got []string
	for _, path := range changes(before, after) {
		got = append(got, strings.Join(path, "."))
	}
	want := "metadata.finalizers.a metadata.labels.x metadata.ownerReferences.u.apiVersion metadata.ownerReferences.u.kind" +
		" metadata.ownerReferences.u.name metadata.ownerReferences.u.uid spec.containers"
	if s := strings.Join(got, " "); !strings.HasPrefix(s, want) || !strings.Contains(s, "status.conditions.Ready.status") || !strings.Contains(s, "status.conditions.Old.type") {
		t.Errorf("changes %q, want %q and the two conditions", s, want)
	}
}

// poking is a controller that changes a label and the data, makes an object and deletes one.
type poking struct{ c client.Client }

func (p poking) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	if key.Name != "a" {
		return 0, nil
	}
	if _, err := client.Mutate(ctx, p.c, key, "", func(m *corev1.ConfigMap) bool {
		done := m.Data["k"] == "2"
		m.Labels, m.Data = map[string]string{"l": "2"}, map[string]string{"k": "2"}
		return !done
	}); err != nil {
		return 0, err
	}
	for _, r := range p.c.CreateMany(ctx, []api.Object{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "made"}}}) {
		if r.Err != nil {
			return 0, controller.Terminal(r.Err)
		}
	}
	return 0, client.Delete[*corev1.ConfigMap](ctx, p.c, api.Key{Namespace: key.Namespace, Name: "made"}, metav1.DeleteOptions{})
}

func TestWritesThatAreNotDeclaredAreNoticed(t *testing.T) {
	for _, tc := range []struct {
		writes []controller.Write
		want   string
	}{
		{[]controller.Write{controller.Sets(api.ConfigMaps, "data"), controller.Sets(api.ConfigMaps, "metadata", "labels"),
			controller.Creates(api.ConfigMaps), controller.Deletes(api.ConfigMaps)}, "[]"},
		{[]controller.Write{controller.Sets(api.ConfigMaps, "data", "other"), controller.Deletes(nil)},
			"[sets data.k of configmaps sets metadata.labels.l of configmaps creates configmaps]"},
		{[]controller.Write{controller.Sets(api.Secrets, "data"), controller.Sets(nil, "metadata"), controller.Creates(api.ConfigMaps)},
			"[sets data.k of configmaps deletes configmaps]"},
	} {
		Run(t, func(c *Cluster) {
			seen := c.Client.(*watched)
			var complaints []string
			seen.complain = func(_, what string) { complaints = append(complaints, what) }
			Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Labels: map[string]string{"l": "1"}}, Data: map[string]string{"k": "1"}})
			c.Start(controller.Controller{Name: "poking", Watches: []controller.Watch{{Resource: api.ConfigMaps}}, Writes: tc.writes, Reconciler: poking{c.Client}})
			c.Pass(time.Second)
			if got := fmt.Sprint(complaints); got != tc.want {
				t.Errorf("declared %v, complaints %s; want %s", tc.writes, got, tc.want)
			}
		})
	}
}
