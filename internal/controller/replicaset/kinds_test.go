package replicaset

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func replicationController(name string, n int32) *corev1.ReplicationController {
	template := ct.Template(name, "img")
	return &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       corev1.ReplicationControllerSpec{Replicas: &n, Selector: map[string]string{"app": name}, Template: &template},
	}
}

func TestReplicationControllerIsScaled(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(NewReplicationControllers(c.Client), New(c.Client), ct.Kubelet(c.Client, 0, time.Second))
		ct.Make(c, replicationController("web", 3))
		c.Pass(time.Second)
		rc := ct.Get[*corev1.ReplicationController](c, ns, "web")
		want := corev1.ReplicationControllerStatus{Replicas: 3, FullyLabeledReplicas: 3, ReadyReplicas: 3, AvailableReplicas: 3, ObservedGeneration: 1}
		if !apiequality.Semantic.DeepEqual(rc.Status, want) {
			t.Fatalf("status %+v, want %+v", rc.Status, want)
		}
		for _, p := range ct.All[*corev1.Pod](c, ns) {
			if ref := metav1.GetControllerOf(p); ref == nil || ref.Kind != "ReplicationController" || ref.APIVersion != "v1" || ref.UID != rc.UID {
				t.Errorf("pod %s is controlled by %+v", p.Name, ref)
			}
		}
		ct.Change(c, ns, "web", "", func(rc *corev1.ReplicationController) { *rc.Spec.Replicas = 1 })
		c.Pass(2 * time.Second)
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 1 {
			t.Errorf("%d pods after scaling down, want 1", n)
		}
		version := ct.Get[*corev1.ReplicationController](c, ns, "web").ResourceVersion
		c.Pass(time.Minute)
		if now := ct.Get[*corev1.ReplicationController](c, ns, "web").ResourceVersion; now != version {
			t.Errorf("the status is written although nothing changes")
		}
	})
}

func TestReplicationControllerAdoptsAndReleases(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(NewReplicationControllers(c.Client))
		tmpl := ct.Template("web", "img")
		ct.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "early", Labels: tmpl.Labels}, Spec: tmpl.Spec})
		rc := ct.Make(c, replicationController("web", 1))
		c.Settle()
		if p := ct.Get[*corev1.Pod](c, ns, "early"); !metav1.IsControlledBy(p, rc) {
			t.Error("a matching pod that was there before was not adopted")
		}
		ct.Change(c, ns, "early", "", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "debug"} })
		c.Settle()
		if p := ct.Get[*corev1.Pod](c, ns, "early"); metav1.GetControllerOf(p) != nil {
			t.Error("a pod whose labels changed was not released")
		}
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 2 {
			t.Errorf("%d pods, want the released one and its successor", n)
		}
	})
}

func TestReplicationControllerReportsThatPodsAreRefused(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		asked := 0
		front := &refusing{Client: c.Client, refuse: true, asked: &asked}
		ct.Make(c, replicationController("web", 2))
		r, key := NewReplicationControllers(front).Reconciler, api.Key{Namespace: ns, Name: "web"}
		if _, err := r.Reconcile(c.T.Context(), key); !apierrors.IsForbidden(err) {
			t.Fatalf("error %v, want the refusal", err)
		}
		rc := ct.Get[*corev1.ReplicationController](c, ns, "web")
		if cs := rc.Status.Conditions; len(cs) != 1 || cs[0].Type != corev1.ReplicationControllerReplicaFailure || cs[0].Reason != "FailedCreate" {
			t.Errorf("conditions %+v, want ReplicaFailure with FailedCreate", cs)
		}
		for _, e := range ct.All[*corev1.Event](c, ns) {
			if e.InvolvedObject.Kind != "ReplicationController" || e.Source.Component != "replication-controller" {
				t.Errorf("an event of %s is about a %s", e.Source.Component, e.InvolvedObject.Kind)
			}
		}
		front.refuse = false
		if _, err := r.Reconcile(c.T.Context(), key); err != nil {
			t.Fatal(err)
		}
		if s := ct.Get[*corev1.ReplicationController](c, ns, "web").Status; len(s.Conditions) != 0 || s.Replicas != 2 {
			t.Errorf("when pods are let in again: status %+v", s)
		}
	})
}
