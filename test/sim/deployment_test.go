package sim

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

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

// availability follows pods by a watch and notes the fewest that were ready at any time, and the most that there were.
type availability struct {
	ready, all           map[types.UID]bool
	fewestReady, mostAll int
}

func (a *availability) see(e client.Event) {
	p, ok := e.Object.(*corev1.Pod)
	if !ok || p.Labels["app"] != "web" {
		return
	}
	delete(a.ready, p.UID)
	delete(a.all, p.UID)
	if e.Type == client.Deleted {
		return
	}
	if podReady(p) {
		a.ready[p.UID] = true
	}
	if p.DeletionTimestamp == nil {
		a.all[p.UID] = true
	}
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

		seen := availability{ready: map[types.UID]bool{}, all: map[types.UID]bool{}, fewestReady: replicas}
		watch, err := client.Watch[*corev1.Pod](w.ctx, w.Client, client.ListOptions{Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Stop()
		done := make(chan struct{})
		w.wg.Go(func() {
			defer close(done)
			synced := false
			for {
				events, err := watch.Next(w.ctx)
				if err != nil {
					return
				}
				for _, e := range events {
					seen.see(e)
					synced = synced || e.Type == client.Synced
					if synced {
						seen.fewestReady, seen.mostAll = min(seen.fewestReady, len(seen.ready)), max(seen.mostAll, len(seen.all))
					}
				}
			}
		})
		w.change("web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "docker.io/library/app:2" })
		took := w.until("the update to end", 5*time.Minute, w.settled("web", "docker.io/library/app:2", replicas))
		watch.Stop()
		<-done
		t.Logf("the update took %v; %d to %d pods", took, seen.fewestReady, seen.mostAll)
		if seen.fewestReady < replicas-unavailable {
			t.Errorf("only %d pods were ready at a time; at least %d should have been", seen.fewestReady, replicas-unavailable)
		}
		if seen.mostAll > replicas+surge {
			t.Errorf("there were %d pods at a time; at most %d should have been", seen.mostAll, replicas+surge)
		}
		if seen.fewestReady == replicas && seen.mostAll == replicas {
			t.Error("the watch saw nothing of the update")
		}
	})
}
