package garbagecollector

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/deployment"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
)

const ns = metav1.NamespaceDefault

// ref is a reference to an object of v1, blocking if block.
func ref(kind, name string, uid types.UID, block bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: name, UID: uid, BlockOwnerDeletion: &block}
}

// configMap makes a ConfigMap in namespace with owners.
func configMap(c *ct.Cluster, namespace, name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
	return ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, OwnerReferences: owners}})
}

func toConfigMap(cm *corev1.ConfigMap, block bool) metav1.OwnerReference {
	return ref("ConfigMap", cm.Name, cm.UID, block)
}

// names lists the ConfigMaps of a namespace; with a tilde those that are being deleted.
func names(c *ct.Cluster, namespace string) string {
	var out []string
	for _, cm := range ct.All[*corev1.ConfigMap](c, namespace) {
		n := cm.Name
		if cm.DeletionTimestamp != nil {
			n = "~" + n
		}
		out = append(out, n)
	}
	return strings.Join(out, " ")
}

func remove(c *ct.Cluster, name string, policy metav1.DeletionPropagation) {
	ct.Delete[*corev1.ConfigMap](c, ns, name, metav1.DeleteOptions{PropagationPolicy: &policy})
}

func TestBackground(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		a := configMap(c, ns, "a")
		b := configMap(c, ns, "b", toConfigMap(a, true))
		configMap(c, ns, "c", toConfigMap(b, false))
		other := configMap(c, ns, "other")
		configMap(c, ns, "shared", toConfigMap(a, false), toConfigMap(other, false))
		c.Settle()
		remove(c, "a", metav1.DeletePropagationBackground)
		c.Settle()
		if got := names(c, ns); got != "other shared" {
			t.Errorf("left: %s, want other shared", got)
		}
		if refs := ct.Get[*corev1.ConfigMap](c, ns, "shared").OwnerReferences; len(refs) != 1 || refs[0].Name != "other" {
			t.Errorf("references of shared: %v", refs)
		}
	})
}

func TestOrphan(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		a := configMap(c, ns, "a")
		configMap(c, ns, "b", toConfigMap(a, true))
		remove(c, "a", metav1.DeletePropagationOrphan)
		c.Settle()
		if got := names(c, ns); got != "b" {
			t.Errorf("left: %s, want b", got)
		}
		if refs := ct.Get[*corev1.ConfigMap](c, ns, "b").OwnerReferences; len(refs) != 0 {
			t.Errorf("b still has owners %v", refs)
		}
	})
}

func TestForeground(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		a := configMap(c, ns, "a")
		b := configMap(c, ns, "b", toConfigMap(a, true))
		configMap(c, ns, "c", toConfigMap(b, true))
		configMap(c, ns, "loose", toConfigMap(a, false))
		ct.Change(c, ns, "c", "", func(cm *corev1.ConfigMap) { cm.Finalizers = []string{"example.com/hold"} })
		remove(c, "a", metav1.DeletePropagationForeground)
		c.Settle()
		if got := names(c, ns); got != "~a ~b ~c" {
			t.Errorf("while c is held: %s, want ~a ~b ~c", got)
		}
		ct.Change(c, ns, "c", "", func(cm *corev1.ConfigMap) { cm.Finalizers = nil })
		c.Settle()
		if got := names(c, ns); got != "" {
			t.Errorf("left: %s", got)
		}
	})
}

// TestASecondDeletionChangesTheFirst: while the dependents of a are held, somebody decides that they are to stay.
func TestASecondDeletionChangesTheFirst(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		a := configMap(c, ns, "a")
		configMap(c, ns, "b", toConfigMap(a, true))
		ct.Change(c, ns, "b", "", func(cm *corev1.ConfigMap) { cm.Finalizers = []string{"example.com/hold"} })
		remove(c, "a", metav1.DeletePropagationForeground)
		c.Settle()
		if got := names(c, ns); got != "~a ~b" {
			t.Errorf("while b is held: %s, want ~a ~b", got)
		}
		remove(c, "a", metav1.DeletePropagationOrphan)
		c.Settle()
		if got := names(c, ns); got != "~b" {
			t.Errorf("once b is to stay: %s, want ~b alone", got)
		}
		if refs := ct.Get[*corev1.ConfigMap](c, ns, "b").OwnerReferences; len(refs) != 0 {
			t.Errorf("b still has owners %v", refs)
		}
	})
}

func TestForegroundCircle(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		a := configMap(c, ns, "a")
		b := configMap(c, ns, "b", toConfigMap(a, true))
		ct.Change(c, ns, "a", "", func(cm *corev1.ConfigMap) { cm.OwnerReferences = []metav1.OwnerReference{toConfigMap(b, true)} })
		c.Settle()
		remove(c, "a", metav1.DeletePropagationForeground)
		c.Pass(time.Minute)
		if got := names(c, ns); got != "" {
			t.Errorf("left: %s", got)
		}
	})
}

func TestAnotherOwnerReleasesForeground(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		a, other := configMap(c, ns, "a"), configMap(c, ns, "other")
		configMap(c, ns, "shared", toConfigMap(a, true), toConfigMap(other, false))
		remove(c, "a", metav1.DeletePropagationForeground)
		c.Settle()
		if got := names(c, ns); got != "other shared" {
			t.Errorf("left: %s, want other shared", got)
		}
	})
}

func TestOwnersThatNeverWere(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "far"}})
		far := configMap(c, "far", "owner")
		near := configMap(c, ns, "near")
		configMap(c, ns, "absent", ref("ConfigMap", "nobody", "1", false))
		configMap(c, ns, "old-uid", ref("ConfigMap", "near", "1", false))
		configMap(c, ns, "across", toConfigMap(far, false))
		configMap(c, ns, "unknown-kind", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Thing", Name: "x", UID: "2"})
		configMap(c, ns, "good", toConfigMap(near, false))
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", OwnerReferences: []metav1.OwnerReference{toConfigMap(near, false)}}})
		c.Settle()
		if got := names(c, ns); got != "good near unknown-kind" {
			t.Errorf("left: %s, want good near unknown-kind", got)
		}
		if ct.Gone[*corev1.Node](c, "", "n") {
			t.Error("a node whose owner is misplaced was deleted")
		}
		if got := len(c.Events("OwnerRefInvalidNamespace")); got != 2 {
			t.Errorf("%d events %q, want one for across and one for the node", got, c.Events("OwnerRefInvalidNamespace"))
		}
	})
}

func TestDependentsOfWhatWentWhileNobodyLooked(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		a := configMap(c, ns, "a")
		configMap(c, ns, "b", toConfigMap(a, true))
		remove(c, "a", metav1.DeletePropagationBackground)
		f := configMap(c, ns, "f")
		configMap(c, ns, "g", toConfigMap(f, true))
		remove(c, "f", metav1.DeletePropagationForeground)
		o := configMap(c, ns, "o")
		configMap(c, ns, "p", toConfigMap(o, true))
		remove(c, "o", metav1.DeletePropagationOrphan)
		c.Start(New(c.Client))
		c.Settle()
		if got := names(c, ns); got != "p" {
			t.Errorf("left: %s, want p", got)
		}
	})
}

func TestDeploymentGoesWithAllItMade(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		ct.Run(t, func(c *ct.Cluster) {
			c.Start(New(c.Client), deployment.New(c.Client, nil), replicaset.New(c.Client), ct.Kubelet(c.Client, 0, 3*time.Second))
			n := int32(20)
			ct.Make(c, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
				Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: ct.Selector("web"), Template: ct.Template("web", "v1")}})
			c.Pass(10 * time.Second)
			ct.Delete[*appsv1.Deployment](c, ns, "web", metav1.DeleteOptions{PropagationPolicy: &policy})
			c.Pass(time.Second)
			if gone := ct.Gone[*appsv1.Deployment](c, ns, "web"); gone != (policy == metav1.DeletePropagationBackground) {
				t.Errorf("%s: Deployment gone %v while pods stop", policy, gone)
			}
			c.Pass(10 * time.Second)
			if !ct.Gone[*appsv1.Deployment](c, ns, "web") || len(ct.All[*appsv1.ReplicaSet](c, ns)) != 0 || len(ct.All[*corev1.Pod](c, ns)) != 0 {
				t.Errorf("%s: %d ReplicaSets and %d pods left", policy, len(ct.All[*appsv1.ReplicaSet](c, ns)), len(ct.All[*corev1.Pod](c, ns)))
			}
		})
	}
}

func TestPlan(t *testing.T) {
	deleting := metav1.Now()
	waitingDep := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleting, Finalizers: []string{metav1.FinalizerDeleteDependents}}}
	plainDep := &corev1.ConfigMap{}
	for _, tc := range []struct {
		name       string
		finalizers []string
		states     []ownerState
		dependents []metav1.Object
		want       string // drop / unblock / remove
	}{
		{"one owner", nil, []ownerState{solid}, nil, "[] false "},
		{"one owner of two", nil, []ownerState{solid, dangling}, nil, "[1] false "},
		{"one owner and one that waits", nil, []ownerState{waiting, solid}, nil, "[0] false "},
		{"no owner left", nil, []ownerState{dangling, dangling}, nil, "[] false Background"},
		{"no owner left, to be orphaned", []string{metav1.FinalizerOrphanDependents}, []ownerState{dangling}, nil, "[] false Orphan"},
		{"no owner left, to go last", []string{metav1.FinalizerDeleteDependents}, []ownerState{dangling}, nil, "[] false Foreground"},
		{"the owner waits, a leaf", nil, []ownerState{waiting}, nil, "[] false Background"},
		{"the owner waits, not a leaf", nil, []ownerState{waiting, dangling}, []metav1.Object{plainDep}, "[] false Foreground"},
		{"the owner waits, a circle", nil, []ownerState{waiting}, []metav1.Object{plainDep, waitingDep}, "[] true Foreground"},
		{"a kind that nobody knows", nil, []ownerState{dangling, unknown}, nil, "[] false "},
		{"misplaced", nil, []ownerState{misplaced}, nil, "[] false "},
	} {
		obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Finalizers: tc.finalizers}}
		for i := range tc.states {
			obj.OwnerReferences = append(obj.OwnerReferences, metav1.OwnerReference{UID: types.UID(fmt.Sprint(i))})
		}
		act := plan(obj, tc.states, tc.dependents)
		if got := fmt.Sprintf("%v %v %s", act.drop, act.unblock, act.remove); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestOnlyWhatMattersWakesTheCollector(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		r := New(c.Client)
		pods := controller.Watch{Keys: r.Watches[0].Every(api.Pods)}
		a := configMap(c, ns, "a")
		old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "p", OwnerReferences: []metav1.OwnerReference{toConfigMap(a, true)}}}
		status := old.DeepCopy()
		status.Status.Phase = corev1.PodRunning
		if keys := pods.Keys(client.Event{Type: client.Modified, Old: old, Object: status}); len(keys) != 0 {
			t.Errorf("a change of status wakes it for %v", keys)
		}
		if keys := pods.Keys(client.Event{Type: client.Added, Object: old}); len(keys) != 1 {
			t.Errorf("a new dependent wakes it for %v", keys)
		}
	})
}

// Owner references lead from built-in objects to custom ones and back, for resources that come after the collector has begun and that have left.
func TestCustomResourcesOwnAndAreOwned(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		c.Settle()
		boats := api.Custom(api.Resource{
			GroupVersionKind: schema.GroupVersionKind{Group: "harbour.example", Version: "v1", Kind: "Boat"},
			Plural:           "boats", Singular: "boat", Namespaced: true, Prefix: "harbour.example/boats",
		})
		if err := c.Registry.Serve(context.Background(), boats); err != nil {
			t.Fatal(err)
		}
		c.Settle()
		boat := func(name string, refs ...metav1.OwnerReference) api.Object {
			o := boats.New()
			o.SetNamespace(ns)
			o.SetName(name)
			o.SetOwnerReferences(refs)
			out, err := c.Client.Create(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		m := configMap(c, ns, "m")
		owned := boat("owned", toConfigMap(m, false))
		crew := configMap(c, ns, "crew", metav1.OwnerReference{APIVersion: "harbour.example/v1", Kind: "Boat", Name: "owned", UID: owned.GetUID()})
		if err := c.Client.Delete(context.Background(), api.ConfigMaps, api.KeyOf(m), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.Settle()
		for res, o := range map[*api.Resource]api.Object{boats: owned, api.ConfigMaps: crew} {
			if _, err := c.Client.Get(context.Background(), res, api.KeyOf(o)); !apierrors.IsNotFound(err) {
				t.Errorf("%s is still there: %v", o.GetName(), err)
			}
		}
		c.Registry.Retire(boats)
		c.Settle()
		stray := configMap(c, ns, "stray", metav1.OwnerReference{APIVersion: "harbour.example/v1", Kind: "Boat", Name: "gone", UID: "u"})
		c.Settle()
		if _, err := c.Client.Get(context.Background(), api.ConfigMaps, api.KeyOf(stray)); err != nil {
			t.Errorf("an owner of an unknown kind counts as gone: %v", err)
		}
		if err := c.Registry.Serve(context.Background(), boats); err != nil {
			t.Fatal(err)
		}
		c.Pass(2 * unknownAgain)
		if _, err := c.Client.Get(context.Background(), api.ConfigMaps, api.KeyOf(stray)); !apierrors.IsNotFound(err) {
			t.Errorf("the kind came back without the owner, and the dependent stays: %v", err)
		}
	})
}
