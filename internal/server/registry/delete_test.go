package registry_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// TestGracefulDeletion deletes a pod once or twice, ten seconds apart, with different wishes.
func TestGracefulDeletion(t *testing.T) {
	type wish = *int64
	none := wish(nil)
	for _, tc := range []struct {
		name       string
		node       string
		phase      corev1.PodPhase
		finalizers []string
		wishes     []wish
		gone       bool
		grace      int64 // where it is not gone
		deadline   int64 // in seconds after the first deletion
	}{
		{name: "a pod that no node has goes at once", wishes: []wish{none}, gone: true},
		{name: "its own grace period", node: "n", wishes: []wish{none}, grace: 40, deadline: 40},
		{name: "the client's wish", node: "n", wishes: []wish{ptr.To[int64](7)}, grace: 7, deadline: 7},
		{name: "a negative wish is a second", node: "n", wishes: []wish{ptr.To[int64](-5)}, grace: 1, deadline: 1},
		{name: "no grace", node: "n", wishes: []wish{ptr.To[int64](0)}, gone: true},
		{name: "a pod that has ended goes at once", node: "n", phase: corev1.PodSucceeded, wishes: []wish{none}, gone: true},
		{name: "again", node: "n", wishes: []wish{none, none}, grace: 40, deadline: 40},
		{name: "again, shorter: counted from the first time", node: "n", wishes: []wish{none, ptr.To[int64](15)}, grace: 15, deadline: 15},
		{name: "again, longer", node: "n", wishes: []wish{ptr.To[int64](5), ptr.To[int64](15)}, grace: 5, deadline: 5},
		{name: "again, at once", node: "n", wishes: []wish{none, ptr.To[int64](0)}, gone: true},
		{name: "again, when it has ended and its node has not said so", node: "n", phase: "later", wishes: []wish{none, none}, grace: 40, deadline: 40},
		{name: "finalizers", finalizers: []string{"x/y"}, wishes: []wish{none}, grace: 0, deadline: 0},
		{name: "finalizers outlive the grace period", node: "n", finalizers: []string{"x/y"}, wishes: []wish{none, ptr.To[int64](0)}, grace: 0, deadline: 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clienttest.New(t)
				p := pod("a")
				p.Spec.NodeName, p.Finalizers = tc.node, tc.finalizers
				p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](40)
				clienttest.Create(t, c, p)
				phase := func(phase corev1.PodPhase) {
					if _, err := client.Mutate(t.Context(), c, key("a"), "status", func(p *corev1.Pod) bool { p.Status.Phase = phase; return true }); err != nil {
						t.Fatal(err)
					}
				}
				if tc.phase == corev1.PodSucceeded {
					phase(corev1.PodSucceeded)
				}
				start := time.Now()
				for i, wish := range tc.wishes {
					if i > 0 {
						time.Sleep(10 * time.Second) // in the bubble's time
						if tc.phase == "later" {
							phase(corev1.PodSucceeded)
						}
					}
					if err := client.Delete[*corev1.Pod](t.Context(), c, key("a"), metav1.DeleteOptions{GracePeriodSeconds: wish}); err != nil {
						t.Fatal(err)
					}
				}
				got, err := client.Get[*corev1.Pod](t.Context(), c, key("a"))
				if tc.gone {
					if !apierrors.IsNotFound(err) {
						t.Fatalf("still there: %+v, %v", got, err)
					}
					return
				}
				if err != nil || got.DeletionTimestamp == nil {
					t.Fatalf("%+v, %v", got, err)
				}
				if *got.DeletionGracePeriodSeconds != tc.grace || int64(got.DeletionTimestamp.Sub(start).Seconds()) != tc.deadline {
					t.Errorf("grace %d, deadline after %v; want %d, %d s", *got.DeletionGracePeriodSeconds, got.DeletionTimestamp.Sub(start), tc.grace, tc.deadline)
				}
				if got.Generation != 2 {
					t.Errorf("generation %d, want 2: the deletion is a change of what is wanted, once", got.Generation)
				}
			})
		})
	}
}

func TestPropagation(t *testing.T) {
	policy := func(p metav1.DeletionPropagation) metav1.DeleteOptions {
		return metav1.DeleteOptions{PropagationPolicy: &p}
	}
	for _, tc := range []struct {
		name string
		have []string
		opts metav1.DeleteOptions
		want []string // nil: gone
	}{
		{"background", nil, policy(metav1.DeletePropagationBackground), nil},
		{"foreground", nil, policy(metav1.DeletePropagationForeground), []string{metav1.FinalizerDeleteDependents}},
		{"orphan", nil, policy(metav1.DeletePropagationOrphan), []string{metav1.FinalizerOrphanDependents}},
		{"as it was", []string{metav1.FinalizerDeleteDependents}, metav1.DeleteOptions{}, []string{metav1.FinalizerDeleteDependents}},
		{"orphan instead of foreground", []string{metav1.FinalizerDeleteDependents, "x/y"}, policy(metav1.DeletePropagationOrphan), []string{"x/y", metav1.FinalizerOrphanDependents}},
		{"background takes both off", []string{metav1.FinalizerDeleteDependents}, policy(metav1.DeletePropagationBackground), nil},
		{"the old way", nil, metav1.DeleteOptions{OrphanDependents: ptr.To(true)}, []string{metav1.FinalizerOrphanDependents}},
		{"the old way, not", []string{metav1.FinalizerOrphanDependents}, metav1.DeleteOptions{OrphanDependents: ptr.To(false)}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := clienttest.New(t)
			cm := clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Finalizers: tc.have}})
			if err := c.Delete(t.Context(), api.ConfigMaps, api.KeyOf(cm), tc.opts); err != nil {
				t.Fatal(err)
			}
			got, err := client.Get[*corev1.ConfigMap](t.Context(), c, api.KeyOf(cm))
			switch {
			case tc.want == nil && !apierrors.IsNotFound(err):
				t.Errorf("still there: %v %v", got, err)
			case tc.want != nil && (err != nil || !slices.Equal(got.Finalizers, tc.want) || got.DeletionTimestamp == nil):
				t.Errorf("finalizers %v, %v; want %v", got.Finalizers, err, tc.want)
			}
		})
	}
}

func TestDeletionPreconditionsAndDryRun(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	p := pod("a")
	p.Spec.NodeName = "n"
	p = clienttest.Create(t, c, p)
	background := metav1.DeletePropagationBackground
	for _, tc := range []struct {
		name  string
		opts  metav1.DeleteOptions
		check func(error) bool
	}{
		{"another UID", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(types.UID("other"))}}, apierrors.IsConflict},
		{"another revision", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: ptr.To("1")}}, apierrors.IsConflict},
		{"two policies", metav1.DeleteOptions{OrphanDependents: ptr.To(true), PropagationPolicy: &background}, apierrors.IsBadRequest},
	} {
		if _, _, err := r.Delete(t.Context(), api.Pods, key("a"), tc.opts); !tc.check(err) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	dry := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	obj, gone, err := r.Delete(t.Context(), api.Pods, key("a"), dry)
	if err != nil || gone || obj.GetDeletionTimestamp() == nil || obj.GetResourceVersion() != p.ResourceVersion {
		t.Errorf("a dry run: %+v, gone %v, %v", obj, gone, err)
	}
	dry.GracePeriodSeconds = ptr.To[int64](0)
	if _, gone, err := r.Delete(t.Context(), api.Pods, key("a"), dry); err != nil || !gone {
		t.Errorf("a dry run without grace: gone %v, %v", gone, err)
	}
	if got, err := client.Get[*corev1.Pod](t.Context(), c, key("a")); err != nil || got != p {
		t.Errorf("after dry runs: %+v, %v", got, err)
	}
	right := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID, ResourceVersion: &p.ResourceVersion}}
	if _, _, err := r.Delete(t.Context(), api.Pods, key("a"), right); err != nil {
		t.Errorf("preconditions that hold: %v", err)
	}
}

func TestFinalizersAndStatus(t *testing.T) {
	c := clienttest.New(t)
	p := pod("a")
	p.Spec.NodeName, p.Finalizers = "n", []string{"x/y"}
	clienttest.Create(t, c, p)
	del := func(grace int64) {
		if err := client.Delete[*corev1.Pod](t.Context(), c, key("a"), metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
			t.Fatal(err)
		}
	}
	del(30)
	edit := func(sub string, change func(p *corev1.Pod)) error {
		_, err := client.Mutate(t.Context(), c, key("a"), sub, func(p *corev1.Pod) bool { change(p); return true })
		return err
	}
	if err := edit("", func(p *corev1.Pod) { p.Finalizers = append(p.Finalizers, "x/late") }); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "no new finalizers can be added") {
		t.Errorf("a finalizer for what is being deleted: %v", err)
	}
	if err := edit("", func(p *corev1.Pod) { p.Finalizers = nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get[*corev1.Pod](t.Context(), c, key("a")); err != nil {
		t.Fatalf("without finalizers, but its node has not ended it: %v", err)
	}
	if err := edit("", func(p *corev1.Pod) { p.DeletionTimestamp, p.DeletionGracePeriodSeconds = nil, nil }); err != nil {
		t.Fatal(err)
	}
	if got, _ := client.Get[*corev1.Pod](t.Context(), c, key("a")); got.DeletionTimestamp == nil {
		t.Error("an update undid a deletion")
	}
	del(0)
	if _, err := client.Get[*corev1.Pod](t.Context(), c, key("a")); !apierrors.IsNotFound(err) {
		t.Errorf("ended by its node: %v", err)
	}
}

func TestDeleteManyAndCollection(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	var objs []api.Object
	for _, name := range []string{"a", "b", "c", "d"} {
		p := pod(name)
		p.Labels = map[string]string{"app": "x"}
		objs = append(objs, clienttest.Create(t, c, p))
	}
	clienttest.Create(t, c, pod("other"))
	elsewhere := clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere"}})
	far := pod("far")
	far.Namespace, far.Labels = elsewhere.Name, map[string]string{"app": "x"}
	clienttest.Create(t, c, far)

	for i := range 2 { // of a and b only the names come again
		if err := client.Delete[*corev1.Pod](t.Context(), c, api.KeyOf(objs[i]), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b := pod("b")
	b.Labels = map[string]string{"app": "x"}
	clienttest.Create(t, c, b)
	results := c.DeleteMany(t.Context(), objs[:3], metav1.DeleteOptions{})
	if !apierrors.IsNotFound(results[0].Err) || !apierrors.IsConflict(results[1].Err) || results[2].Err != nil || results[2].Object.GetName() != "c" {
		t.Errorf("results: %+v", results)
	}
	selected := registry.Selection{Namespace: "default", Labels: labels.SelectorFromSet(labels.Set{"app": "x"})}
	deleted, err := r.DeleteCollection(t.Context(), api.Pods, selected, metav1.DeleteOptions{})
	if err != nil || len(deleted) != 2 || deleted[0].GetName() != "b" || deleted[1].GetName() != "d" {
		t.Errorf("the collection: %v, %v", deleted, err)
	}
	left, _ := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{})
	if len(left) != 2 || left[0].Name != "other" || left[1].Name != "far" {
		t.Errorf("left: %d pods, first %s", len(left), left[0].Name)
	}
}
