package namespace

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/server/aggregate"
)

func condition(ns *corev1.Namespace, t corev1.NamespaceConditionType) corev1.NamespaceCondition {
	for _, c := range ns.Status.Conditions {
		if c.Type == t {
			return c
		}
	}
	return corev1.NamespaceCondition{}
}

func TestDeletesEverythingPodsFirst(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "cm"}})
		ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other"}})
		// No controller that would make pods anew runs here: that none can in such a namespace is admission's care.
		for _, name := range []string{"p1", "p2", "p3"} {
			ct.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: ct.Template("web", "img").Spec})
		}
		n := int32(3)
		ct.Make(c, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web"},
			Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: ct.Selector("web"), Template: ct.Template("web", "img")}})
		c.Start(New(c.Client, nil), ct.Kubelet(c.Client, 0, 10*time.Second))
		c.Pass(time.Second)

		ct.Delete[*corev1.Namespace](c, "", "a", metav1.DeleteOptions{})
		c.Pass(5 * time.Second)
		ns := ct.Get[*corev1.Namespace](c, "", "a")
		left := condition(ns, corev1.NamespaceContentRemaining)
		if ns.Status.Phase != corev1.NamespaceTerminating || left.Status != corev1.ConditionTrue || !strings.Contains(left.Message, "pods. has 3 resource instances") {
			t.Errorf("while pods stop: phase %s, %+v", ns.Status.Phase, left)
		}
		if ct.Gone[*corev1.ConfigMap](c, "a", "cm") {
			t.Error("a ConfigMap went before the pods that may use it")
		}
		c.Pass(6 * time.Second)
		if !ct.Gone[*corev1.Namespace](c, "", "a") {
			t.Fatalf("the namespace is still there: %+v", ct.Get[*corev1.Namespace](c, "", "a"))
		}
		if len(ct.All[*corev1.ConfigMap](c, "a"))+len(ct.All[*appsv1.ReplicaSet](c, "a"))+len(ct.All[*corev1.Pod](c, "a"))+len(ct.All[*corev1.Event](c, "a")) != 0 {
			t.Error("content outlived its namespace")
		}
		ct.Get[*corev1.ConfigMap](c, "default", "other")
	})
}

func TestFinalizersHoldANamespace(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "held", Finalizers: []string{"example.com/hold"}}})
		c.Start(New(c.Client, nil))
		ct.Delete[*corev1.Namespace](c, "", "a", metav1.DeleteOptions{})
		c.Settle()
		ns := ct.Get[*corev1.Namespace](c, "", "a")
		if f := condition(ns, corev1.NamespaceFinalizersRemaining); f.Status != corev1.ConditionTrue || !strings.Contains(f.Message, "example.com/hold in 1 resource instances") {
			t.Errorf("condition %+v", f)
		}
		ct.Change(c, "a", "held", "", func(cm *corev1.ConfigMap) { cm.Finalizers = nil })
		c.Settle() // no time passes: the event is enough
		if !ct.Gone[*corev1.Namespace](c, "", "a") {
			t.Error("the namespace is still there after its last object went")
		}
	})
}

func TestActiveNamespaceIsLeftAlone(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		made := ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "cm"}})
		c.Start(New(c.Client, nil))
		c.Pass(time.Hour)
		if ns := ct.Get[*corev1.Namespace](c, "", "a"); ns.ResourceVersion != made.ResourceVersion || ct.Gone[*corev1.ConfigMap](c, "a", "cm") {
			t.Error("an active namespace was changed")
		}
	})
}

func TestConditions(t *testing.T) {
	t0, t1 := time.Unix(100, 0), time.Unix(200, 0)
	r := newRemains()
	r.count(api.Pods, []api.Object{&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"x/y"}}}, &corev1.Pod{}})
	r.count(api.Deployments, []api.Object{&appsv1.Deployment{}})
	r.fail(errors.New("no"))
	first, changed := r.conditions(nil, t0)
	if !changed || len(first) != 5 {
		t.Fatalf("%d conditions, changed %v", len(first), changed)
	}
	ns := &corev1.Namespace{Status: corev1.NamespaceStatus{Conditions: first}}
	if m := condition(ns, corev1.NamespaceContentRemaining).Message; m != "Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances" {
		t.Errorf("message %q", m)
	}
	if m := condition(ns, corev1.NamespaceDeletionContentFailure).Message; m != "Failed to delete all resource types, 1 remaining: no" {
		t.Errorf("message %q", m)
	}
	if _, changed := r.conditions(first, t1); changed {
		t.Error("the same remains change the conditions")
	}
	fewer := newRemains()
	fewer.count(api.Pods, []api.Object{&corev1.Pod{}})
	second, changed := fewer.conditions(first, t1)
	ns.Status.Conditions = second
	left, fin := condition(ns, corev1.NamespaceContentRemaining), condition(ns, corev1.NamespaceFinalizersRemaining)
	if !changed || !left.LastTransitionTime.Time.Equal(t0) || !fin.LastTransitionTime.Time.Equal(t1) || fin.Status != corev1.ConditionFalse {
		t.Errorf("later: %+v and %+v", left, fin)
	}
}

func TestOtherServersHoldANamespace(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		var left atomic.Pointer[aggregate.Left]
		left.Store(&aggregate.Left{Undiscovered: []string{"fish.example.com/v1"}})
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "cm"}})
		c.Start(New(c.Client, func(context.Context, string) aggregate.Left { return *left.Load() }))
		ct.Delete[*corev1.Namespace](c, "", "a", metav1.DeleteOptions{})
		c.Settle()
		if !ct.Gone[*corev1.ConfigMap](c, "a", "cm") {
			t.Error("what this server holds waits for another one")
		}
		f := condition(ct.Get[*corev1.Namespace](c, "", "a"), corev1.NamespaceDeletionDiscoveryFailure)
		want := "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: fish.example.com/v1: stale GroupVersion discovery: fish.example.com/v1"
		if f.Status != corev1.ConditionTrue || f.Reason != "DiscoveryFailed" || f.Message != want {
			t.Errorf("%+v", f)
		}
		left.Store(&aggregate.Left{Objects: map[string]int{"fishes.fish.example.com": 2}, Finalizers: map[string]int{"sea/hold": 1}})
		c.Pass(lookAgain)
		ns := ct.Get[*corev1.Namespace](c, "", "a")
		if m := condition(ns, corev1.NamespaceContentRemaining).Message; m != "Some resources are remaining: fishes.fish.example.com has 2 resource instances" {
			t.Errorf("message %q", m)
		}
		if condition(ns, corev1.NamespaceDeletionDiscoveryFailure).Status != corev1.ConditionFalse {
			t.Errorf("%+v", ns.Status)
		}
		left.Store(&aggregate.Left{})
		c.Pass(lookAgain)
		if !ct.Gone[*corev1.Namespace](c, "", "a") {
			t.Error("the namespace is still there")
		}
	})
}
