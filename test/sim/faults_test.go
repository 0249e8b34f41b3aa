package sim

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// TestFaultyStoreConverges rolls out and scales while the store fails, answers late, loses answers and breaks its stream of changes.
func TestFaultyStoreConverges(t *testing.T) {
	for name, r := range map[string]rates{
		"refuses":         {refuse: 0.2},
		"loses answers":   {unknown: 0.2},
		"is slow":         {latency: 2 * time.Second},
		"loses the watch": {lose: 0.1},
		"all at once":     {refuse: 0.1, unknown: 0.1, lose: 0.05, latency: 500 * time.Millisecond},
	} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/seed=%d", name, seed), func(t *testing.T) {
				simulate(t, seed, func(w *world) {
					w.nodes(0, 4)
					w.backend.fail(r)
					w.deploy("web", 40)
					w.pass(20 * time.Second)
					w.change("web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "docker.io/library/app:2" })
					w.pass(20 * time.Second)
					w.change("web", func(d *appsv1.Deployment) { *d.Spec.Replicas = 25 })
					w.until("25 pods of the new image, while the faults last", 30*time.Minute, w.settled("web", "docker.io/library/app:2", 25))
					if r.latency == 0 && w.backend.faults() == 0 {
						t.Error("no fault was injected")
					}
					w.backend.fail(rates{})
					w.pass(10 * time.Minute) // what was put off
					if ok, seen := w.settled("web", "docker.io/library/app:2", 25)(); !ok {
						t.Errorf("ten minutes after the last fault: %v", seen)
					}
				})
			})
		}
	}
}

// TestWatchThatFallsBehindBeginsAnew does not read a watch until its queue is full: then it is told to begin anew, and sees the present.
func TestWatchThatFallsBehindBeginsAnew(t *testing.T) {
	const objects, rounds = 500, 101 // the queue holds 50,000 events
	simulate(t, 0, func(w *world) {
		objs := make([]api.Object, objects)
		for i := range objs {
			objs[i] = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%03d", i), Namespace: "default"}, Data: map[string]string{"round": "0"}}
		}
		write := func(do func([]api.Object) []client.Result) {
			for i, r := range do(objs) {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
				objs[i] = r.Object
			}
		}
		write(func(o []api.Object) []client.Result { return w.CreateMany(w.ctx, o) })
		watch, err := clienttest.Watch[*corev1.ConfigMap](w.ctx, w.Client, client.ListOptions{Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Stop()
		if _, err := watch.Next(w.ctx); err != nil {
			t.Fatal(err)
		}
		for round := 1; round <= rounds; round++ {
			for i, o := range objs {
				c := o.DeepCopyObject().(*corev1.ConfigMap)
				c.Data["round"] = fmt.Sprint(round)
				objs[i] = c
			}
			write(func(o []api.Object) []client.Result { return w.UpdateMany(w.ctx, o, "") })
		}
		batch, err := watch.Next(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !batch.Full {
			t.Fatalf("the first batch after falling behind is not the full state, but %d events", len(batch.Events))
		}
		current := 0
		for _, e := range batch.Events {
			if e.Object.(*corev1.ConfigMap).Data["round"] == fmt.Sprint(rounds) {
				current++
			}
		}
		if current != objects {
			t.Errorf("%d objects were shown in their present state; want %d", current, objects)
		}
	})
}
