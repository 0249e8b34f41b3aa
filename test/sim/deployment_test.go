package sim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

func TestDeploymentBecomesReady(t *testing.T) {
	simulate(t, 0, func(w *world) {
		w.nodes(0, 20)
		w.deploy("web", 500)
		took := w.until("500 pods to be ready", 30*time.Second, w.settled("web", "docker.io/library/app:1", 500))
		t.Logf("500 pods were ready after %v", took)
		perNode := map[string]int{}
		for _, p := range w.pods("web") {
			perNode[p.Spec.NodeName]++
		}
		for name, n := range perNode {
			if n < 20 || n > 30 {
				t.Errorf("node %s has %d of 500 pods; 20 nodes should share them evenly", name, n)
			}
		}
		w.change("web", func(d *appsv1.Deployment) { *d.Spec.Replicas = 20 })
		w.until("20 pods to be left", time.Minute, w.settled("web", "docker.io/library/app:1", 20))
	})
}

// availability follows pods and ReplicaSets by watches and notes the fewest pods that were ready at any time, and the most that were asked
// for. What is asked for is what Kubernetes bounds by maxSurge: pods that end and pods that begin may overlap.
type availability struct {
	ready       map[types.UID]bool
	asked       map[types.UID]int
	fewestReady int
	mostAsked   int
}

func (a *availability) see(e client.Event) {
	switch o := e.Object.(type) {
	case *corev1.Pod:
		delete(a.ready, o.UID)
		if e.Type != client.Deleted && podReady(o) {
			a.ready[o.UID] = true
		}
	case *appsv1.ReplicaSet:
		delete(a.asked, o.UID)
		if e.Type != client.Deleted {
			a.asked[o.UID] = int(*o.Spec.Replicas)
		}
	}
}

// note takes the present numbers into account.
func (a *availability) note() {
	a.fewestReady = min(a.fewestReady, len(a.ready))
	asked := 0
	for _, n := range a.asked {
		asked += n
	}
	a.mostAsked = max(a.mostAsked, asked)
}

// follow sees everything that happens to objects of type T until the returned function is called.
func follow[T api.Object](w *world, a *availability) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	w.wg.Go(func() {
		defer close(done)
		err := client.FollowOnce(ctx, w.Client, client.ResourceOf[T](), client.ListOptions{Namespace: "default"}, func(b client.Batch) {
			for _, e := range b.Events {
				a.see(e)
				if !b.Full {
					a.note()
				}
			}
			a.note()
		})
		if err != nil {
			w.t.Error(err)
		}
	})
	return func() { cancel(); <-done }
}

func TestRollingUpdateKeepsEnoughPods(t *testing.T) {
	const replicas, unavailable, surge = 20, 4, 3
	simulate(t, 0, func(w *world) {
		w.nodes(0, 5)
		w.deploy("web", replicas, func(d *appsv1.Deployment) {
			d.Spec.MinReadySeconds = 5
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: atMost(unavailable), MaxSurge: atMost(surge)}}
		})
		w.until("all pods to be ready", time.Minute, w.settled("web", "docker.io/library/app:1", replicas))

		// Each is written by one goroutine.
		pods := availability{ready: map[types.UID]bool{}, fewestReady: replicas}
		sets := availability{asked: map[types.UID]int{}}
		stopPods, stopSets := follow[*corev1.Pod](w, &pods), follow[*appsv1.ReplicaSet](w, &sets)
		synctest.Wait()
		w.change("web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "docker.io/library/app:2" })
		took := w.until("the update to end", 5*time.Minute, w.settled("web", "docker.io/library/app:2", replicas))
		stopPods()
		stopSets()
		t.Logf("the update took %v; at least %d pods were ready, at most %d asked for", took, pods.fewestReady, sets.mostAsked)
		if pods.fewestReady < replicas-unavailable {
			t.Errorf("only %d pods were ready at a time; at least %d should have been", pods.fewestReady, replicas-unavailable)
		}
		if sets.mostAsked > replicas+surge {
			t.Errorf("%d pods were asked for at a time; at most %d should have been", sets.mostAsked, replicas+surge)
		}
		if pods.fewestReady == replicas && sets.mostAsked == replicas {
			t.Error("the watches saw nothing of the update")
		}
	})
}
