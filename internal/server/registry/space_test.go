package registry_test

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

// disk is a Space that a test fills: 0 has room, 1 takes essential writes, 2 none.
type disk struct{ level atomic.Int32 }

func (d *disk) Admit(essential bool) error {
	if l := d.level.Load(); l == 0 || l == 1 && essential {
		return nil
	}
	return errors.New("the disk of /data is full")
}

func TestAFullDiskRefusesAllButWhatKeepsNodesAliveOrMakesRoom(t *testing.T) {
	d := &disk{}
	r := registry.New(registry.Config{Store: clienttest.RunStore(t, store.NewMem()), Space: d, Log: slog.New(slog.DiscardHandler)})
	ctx := t.Context()
	create := func(obj api.Object) error {
		res := api.BuiltinCatalog().Of(obj)
		_, err := r.Create(ctx, res, obj, metav1.CreateOptions{})
		return err
	}
	label := func(res *api.Resource, k api.Key, sub, value string) error {
		_, _, err := r.Update(ctx, res, k, sub, func(current api.Object) (api.Object, error) {
			out := current.DeepCopyObject().(api.Object)
			out.SetLabels(map[string]string{"x": value})
			if n, ok := out.(*corev1.Node); ok && sub == "status" {
				n.Status.Phase = corev1.NodePhase(value)
			}
			return out, nil
		}, registry.UpdateOptions{})
		return err
	}
	lease := func(name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	}
	node, deployment := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: pod("x").Spec}},
	}
	ending := pod("ending")
	ending.Finalizers = []string{"example.com/wait"}
	for _, obj := range []api.Object{pod("a"), pod("b0"), pod("b1"), pod("b2"), pod("d0"), pod("d1"), pod("d2"), ending, node, deployment, lease("held")} {
		if err := create(obj); err != nil {
			t.Fatal(err)
		}
	}
	now := int64(0)
	remove := func(k api.Key) error {
		_, _, err := r.Delete(ctx, api.Pods, k, metav1.DeleteOptions{GracePeriodSeconds: &now})
		return err
	}
	if err := remove(key("ending")); err != nil {
		t.Fatal(err)
	}
	scale := func(n int32) error {
		_, err := r.UpdateScale(ctx, api.Deployments, key("web"), func(s *autoscalingv1.Scale) (*autoscalingv1.Scale, error) { s.Spec.Replicas = n; return s, nil }, metav1.UpdateOptions{})
		return err
	}
	for _, w := range []struct {
		name string
		till int32 // the fullest disk that takes it
		do   func(value string) error
	}{
		{"creating a pod", 0, func(v string) error { return create(pod("new-" + v)) }},
		{"creating many", 0, func(v string) error {
			return r.CreateMany(ctx, api.Pods, []api.Object{pod("many-" + v)})[0].Err
		}},
		{"changing a pod", 0, func(v string) error { return label(api.Pods, key("a"), "", v) }},
		{"binding a pod", 0, func(v string) error {
			return r.BindMany(ctx, []registry.Binding{{Pod: key("b" + v), Node: "n1"}})[0].Err
		}},
		{"creating what is there", 2, func(string) error {
			if err := create(pod("a")); !apierrors.IsAlreadyExists(err) {
				return err
			}
			return nil
		}},
		{"changing nothing", 2, func(string) error {
			_, _, err := r.Update(ctx, api.Pods, key("a"), "", func(current api.Object) (api.Object, error) { return current.DeepCopyObject().(api.Object), nil }, registry.UpdateOptions{})
			return err
		}},
		{"trying a creation out", 2, func(v string) error {
			_, err := r.Create(ctx, api.Pods, pod("dry-"+v), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}},
		{"reading", 2, func(string) error { _, err := r.List(ctx, api.Pods, registry.ListOptions{}); return err }},
		{"creating a lease", 1, func(v string) error { return create(lease("l" + v)) }},
		{"renewing a lease", 1, func(v string) error { return label(api.Leases, key("held"), "", v) }},
		{"tainting a node", 1, func(v string) error { return label(api.Nodes, api.Key{Name: "n1"}, "", v) }},
		{"writing a status", 1, func(v string) error { return label(api.Nodes, api.Key{Name: "n1"}, "status", v) }},
		{"scaling", 1, func(v string) error { return scale(int32(v[0] - '0')) }},
		{"what ends an object that is being deleted", 1, func(v string) error { return label(api.Pods, key("ending"), "", v) }},
		{"deleting", 1, func(v string) error { return remove(key("d" + v)) }},
	} {
		for level := range int32(3) {
			d.level.Store(level)
			err := w.do(string(rune('0' + level)))
			if level <= w.till && err != nil {
				t.Errorf("%s, disk at level %d: %v", w.name, level, err)
			}
			if level > w.till && (!apierrors.IsServiceUnavailable(err) || err.Error() != "the disk of /data is full") {
				t.Errorf("%s, disk at level %d: got %v, want ServiceUnavailable", w.name, level, err)
			}
		}
	}
	d.level.Store(1)
	if _, err := r.Create(registry.Essential(ctx), api.Pods, pod("at-start"), metav1.CreateOptions{}); err != nil {
		t.Errorf("what a server needs to start: %v", err)
	}
}
