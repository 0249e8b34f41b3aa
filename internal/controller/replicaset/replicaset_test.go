package replicaset

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

const ns = metav1.NamespaceDefault

func replicaSet(name string, n int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       appsv1.ReplicaSetSpec{Replicas: &n, Selector: ct.Selector(name), Template: ct.Template(name, "img")},
	}
}

func TestScalesUpAndDown(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client), ct.Kubelet(c.Client, 0, time.Second))
		ct.Make(c, replicaSet("web", 600)) // more than one burst
		c.Pass(time.Second)
		rs := ct.Get[*appsv1.ReplicaSet](c, ns, "web")
		if s := rs.Status; s.Replicas != 600 || s.ReadyReplicas != 600 || s.AvailableReplicas != 600 || s.FullyLabeledReplicas != 600 || s.ObservedGeneration != rs.Generation {
			t.Fatalf("status %+v, want 600 everywhere", s)
		}
		for _, p := range ct.All[*corev1.Pod](c, ns) {
			if len(p.Name) != len("web-xxxxx") || !metav1.IsControlledBy(p, rs) {
				t.Fatalf("pod %s is controlled by %v", p.Name, p.OwnerReferences)
			}
		}
		ct.Change(c, ns, "web", "", func(rs *appsv1.ReplicaSet) { n := int32(3); rs.Spec.Replicas = &n })
		c.Pass(100 * time.Millisecond)
		rs = ct.Get[*appsv1.ReplicaSet](c, ns, "web")
		if s := rs.Status; s.Replicas != 3 || *s.TerminatingReplicas != 597 {
			t.Errorf("right after scaling down: %d replicas and %d terminating, want 3 and 597", s.Replicas, *s.TerminatingReplicas)
		}
		c.Pass(2 * time.Second)
		if s := ct.Get[*appsv1.ReplicaSet](c, ns, "web").Status; s.Replicas != 3 || *s.TerminatingReplicas != 0 {
			t.Errorf("after scaling down: %d replicas and %d terminating, want 3 and 0", s.Replicas, *s.TerminatingReplicas)
		}
		if n := len(c.Events("SuccessfulCreate")); n == 0 || n > 40 {
			t.Errorf("%d events tell of 600 pods created", n)
		}
	})
}

func TestReplacesPods(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client), ct.Kubelet(c.Client, 0, time.Second))
		ct.Make(c, replicaSet("web", 3))
		c.Settle()
		pods := ct.All[*corev1.Pod](c, ns)
		ct.Delete[*corev1.Pod](c, ns, pods[0].Name, metav1.DeleteOptions{})
		ct.Change(c, ns, pods[1].Name, "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
		c.Pass(2 * time.Second)
		if s := ct.Get[*appsv1.ReplicaSet](c, ns, "web").Status; s.Replicas != 3 || s.ReadyReplicas != 3 {
			t.Errorf("status %+v, want 3 ready", s)
		}
		if got := len(ct.All[*corev1.Pod](c, ns)); got != 4 {
			t.Errorf("%d pods, want 3 and the failed one", got)
		}
	})
}

func TestAdoptsAndReleases(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		tmpl := ct.Template("web", "img")
		ct.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "early", Labels: tmpl.Labels}, Spec: tmpl.Spec})
		rs := ct.Make(c, replicaSet("web", 2))
		c.Settle()
		if p := ct.Get[*corev1.Pod](c, ns, "early"); !metav1.IsControlledBy(p, rs) {
			t.Error("a matching pod that was there before was not adopted")
		}
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 2 {
			t.Errorf("%d pods, want 2", n)
		}
		ct.Change(c, ns, "early", "", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "debug"} })
		c.Settle()
		if p := ct.Get[*corev1.Pod](c, ns, "early"); metav1.GetControllerOf(p) != nil {
			t.Error("a pod whose labels changed was not released")
		}
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 3 {
			t.Errorf("%d pods, want the released one and 2", n)
		}
		ct.Change(c, ns, "early", "", func(p *corev1.Pod) { p.Labels = tmpl.Labels })
		c.Settle()
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 2 {
			t.Errorf("%d pods after the third matched again, want 2", n)
		}
	})
}

func TestMinReadySeconds(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client), ct.Kubelet(c.Client, 0, 0))
		rs := replicaSet("web", 2)
		rs.Spec.MinReadySeconds = 30
		ct.Make(c, rs)
		c.Pass(29 * time.Second)
		if s := ct.Get[*appsv1.ReplicaSet](c, ns, "web").Status; s.ReadyReplicas != 2 || s.AvailableReplicas != 0 {
			t.Errorf("after 29 s: %d ready, %d available, want 2 and 0", s.ReadyReplicas, s.AvailableReplicas)
		}
		c.Pass(2 * time.Second)
		if s := ct.Get[*appsv1.ReplicaSet](c, ns, "web").Status; s.AvailableReplicas != 2 {
			t.Errorf("after 31 s: %d available, want 2", s.AvailableReplicas)
		}
	})
}

// refusing is a client whose front door refuses pods, as a quota does.
type refusing struct {
	client.Client
	refuse bool
	asked  *int
}

func (r *refusing) CreateMany(ctx context.Context, objs []api.Object) []client.Result {
	if _, ok := objs[0].(*corev1.Pod); !ok || !r.refuse {
		return r.Client.CreateMany(ctx, objs)
	}
	*r.asked += len(objs)
	out := make([]client.Result, len(objs))
	for i := range out {
		// The name is made anew for each try.
		out[i].Err = apierrors.NewForbidden(api.Pods.GroupResource(), fmt.Sprint("web-", *r.asked), errors.New("exceeded quota"))
	}
	return out
}

// TestRefusalsThatDifferAreNoHotLoop: each refusal names another pod, and is no reason to try again at once.
func TestRefusalsThatDifferAreNoHotLoop(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		asked := 0
		front := &refusing{Client: c.Client, refuse: true, asked: &asked}
		c.Start(New(front))
		ct.Make(c, replicaSet("web", 2))
		c.Pass(10 * time.Minute)
		if asked < 5 || asked > 60 {
			t.Errorf("asked %d times in ten minutes, want a back-off", asked)
		}
		first := ct.Get[*appsv1.ReplicaSet](c, ns, "web")
		if len(first.Status.Conditions) != 1 || !strings.Contains(first.Status.Conditions[0].Message, "web-1 ") && !strings.Contains(first.Status.Conditions[0].Message, `"web-1"`) {
			t.Errorf("conditions %+v, want the first refusal", first.Status.Conditions)
		}
	})
}

func TestRefusedPodsAreAskedForOneAtATime(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		asked := 0
		front := &refusing{Client: c.Client, refuse: true, asked: &asked}
		ct.Make(c, replicaSet("web", 100))
		r := New(front).Reconciler
		if _, err := r.Reconcile(c.T.Context(), api.Key{Namespace: ns, Name: "web"}); !apierrors.IsForbidden(err) {
			t.Fatalf("error %v, want the refusal", err)
		}
		if asked != 1 {
			t.Errorf("asked for %d pods, want 1", asked)
		}
		rs := ct.Get[*appsv1.ReplicaSet](c, ns, "web")
		if len(rs.Status.Conditions) != 1 || rs.Status.Conditions[0].Reason != "FailedCreate" {
			t.Errorf("conditions %+v, want ReplicaFailure with FailedCreate", rs.Status.Conditions)
		}
		if len(c.Events("FailedCreate")) != 1 {
			t.Errorf("events %v, want one FailedCreate", c.Events("FailedCreate"))
		}
		front.refuse = false
		if _, err := r.Reconcile(c.T.Context(), api.Key{Namespace: ns, Name: "web"}); err != nil {
			t.Fatal(err)
		}
		rs = ct.Get[*appsv1.ReplicaSet](c, ns, "web")
		if len(rs.Status.Conditions) != 0 || rs.Status.Replicas != 100 {
			t.Errorf("when pods are let in again: status %+v", rs.Status)
		}
	})
}

func TestRestartInTheMiddle(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, replicaSet("web", 50))
		for range 5 {
			stop := c.Start(New(c.Client))
			stop() // at some point
		}
		c.Start(New(c.Client))
		c.Settle()
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 50 {
			t.Errorf("%d pods, want 50", n)
		}
	})
}

// A controller that is killed after any of its writes leaves nothing that the next one cannot go on from, and at no time is there a pod too many.
func TestRestartBetweenAnyTwoWrites(t *testing.T) {
	for writes := 1; writes < 6; writes++ {
		ct.Run(t, func(c *ct.Cluster) {
			ct.Make(c, replicaSet("web", 7))
			settle := func(want int) {
				t.Helper()
				for range 60 {
					r := New(&ct.Killed{Client: c.Client, Left: writes}).Reconciler
					_, _ = r.Reconcile(context.Background(), api.Key{Namespace: ns, Name: "web"})
					c.Pass(time.Second)
					if n := len(ct.All[*corev1.Pod](c, ns)); n > 7 {
						t.Fatalf("%d pods, %d writes at a time", n, writes)
					}
				}
				rs := ct.Get[*appsv1.ReplicaSet](c, ns, "web")
				if n := len(ct.All[*corev1.Pod](c, ns)); n != want || rs.Status.Replicas != int32(want) || rs.Status.ObservedGeneration != rs.Generation {
					t.Errorf("%d writes at a time: %d pods, want %d; status %+v", writes, n, want, rs.Status)
				}
			}
			settle(7)
			ct.Change(c, ns, "web", "", func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = ptr.To(int32(2)) })
			settle(2)
		})
	}
}

func TestDeletedReplicaSetMakesNoPods(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		rs := replicaSet("web", 3)
		rs.Finalizers = []string{"example.com/wait"}
		ct.Make(c, rs)
		ct.Delete[*appsv1.ReplicaSet](c, ns, "web", metav1.DeleteOptions{})
		c.Start(New(c.Client))
		c.Settle()
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 0 {
			t.Errorf("%d pods, want none", n)
		}
	})
}
