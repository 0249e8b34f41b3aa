package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// source returns the scheduler's source of res.
func (s *Scheduler) source(res *api.Resource) *source {
	for _, src := range s.sources {
		if src.resource == res {
			return src
		}
	}
	return nil
}

func added(objs ...api.Object) []client.Event {
	var out []client.Event
	for _, o := range objs {
		out = append(out, client.Event{Type: client.Added, Object: o})
	}
	return out
}

// TestAFullBatchForgetsWhatIsGone loses the pod watch while one placed and one pending pod disappear.
func TestAFullBatchForgetsWhatIsGone(t *testing.T) {
	s := New(Config{})
	pods, nodes := s.source(api.Pods), s.source(api.Nodes)
	with := func(name, node string) *corev1.Pod {
		p := newPod(name, "1", func(p *corev1.Pod) {
			p.UID, p.Spec.NodeName, p.Spec.SchedulerName = types.UID(name), node, Name
		})
		return p
	}
	s.apply(fed{nodes, client.Batch{Events: added(benchNode(0), benchNode(1))}})
	kept, gone, waits, left := with("kept", "node-0"), with("gone", "node-1"), with("waits", ""), with("left", "")
	s.apply(fed{pods, client.Batch{Full: true, Events: added(kept, gone, waits, left)}})
	if !pods.synced || s.synced() {
		t.Fatalf("pods synced %t, all %t; want pods only", pods.synced, s.synced())
	}

	s.helps = 0
	s.apply(fed{pods, client.Batch{Full: true, Events: added(kept, waits)}})
	if got := s.state.PodKeys(); len(got) != 1 || got[0].Name != "kept" {
		t.Errorf("placed: %v, want kept", got)
	}
	if len(s.queue.pods) != 1 || s.queue.pods[api.KeyOf(waits)] == nil {
		t.Errorf("%d pods wait, want one: waits", len(s.queue.pods))
	}
	if s.helps&placement.PodGone == 0 {
		t.Error("the pod that went is not told to those that wait")
	}
}

// TestStaleEventsDoNotUndoABinding delivers an older state of a pod after it was bound.
func TestStaleEventsDoNotUndoABinding(t *testing.T) {
	s := New(Config{})
	s.apply(fed{s.source(api.Nodes), client.Batch{Events: added(benchNode(0))}})
	pod := newPod("a", "1", func(p *corev1.Pod) { p.UID, p.Spec.SchedulerName = "u", Name })
	s.apply(fed{s.source(api.Pods), client.Batch{Events: added(pod)}})
	s.round(time.Unix(0, 0))
	flights := <-s.batches
	s.landed(flights, []client.Result{{}})
	s.apply(fed{s.source(api.Pods), client.Batch{Events: []client.Event{{Type: client.Modified, Object: pod.DeepCopy()}}}})
	if len(s.queue.pods) != 0 {
		t.Error("the bound pod waits again")
	}
	again := pod.DeepCopy()
	again.UID = "v" // another of that name is another pod
	s.apply(fed{s.source(api.Pods), client.Batch{Events: []client.Event{{Type: client.Deleted, Object: pod}, {Type: client.Added, Object: again}}}})
	if len(s.queue.pods) != 1 || len(s.state.PodKeys()) != 0 {
		t.Errorf("%d wait, %d placed; want the new pod to wait", len(s.queue.pods), len(s.state.PodKeys()))
	}
}

// flaky fails bindings at random, some of them after they were made.
type flaky struct {
	client.Client
	mu  sync.Mutex
	rng *rand.Rand
}

func (f *flaky) BindMany(ctx context.Context, bs []client.Binding) []client.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	time.Sleep(time.Duration(f.rng.Intn(50)) * time.Millisecond) // of the bubble's clock: rounds overlap
	out := make([]client.Result, len(bs))
	for i, b := range bs {
		switch f.rng.Intn(10) {
		case 0:
			out[i].Err = errors.New("not reached")
		case 1:
			f.Client.BindMany(ctx, bs[i:i+1])
			out[i].Err = errors.New("reached, but the answer was lost")
		default:
			out[i] = f.Client.BindMany(ctx, []client.Binding{b})[0]
		}
	}
	return out
}

// TestNeverOvercommits lets pods come and go while bindings fail; no node may hold more than it has at any time, and all
// pods that fit are placed in the end.
func TestNeverOvercommits(t *testing.T) {
	for seed := range int64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewSource(seed))
				c := &cluster{t: t, Client: clienttest.New(t)}
				c.s = New(Config{Client: &flaky{Client: c.Client, rng: rand.New(rand.NewSource(seed))}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
				defer c.start(c.s)()
				for i := range 5 {
					c.node(fmt.Sprintf("n%d", i), "10")
				}
				live := map[string]bool{}
				for i := range 200 {
					name := fmt.Sprintf("p%d", i)
					c.pod(name, "1")
					live[name] = true
					if rng.Intn(3) == 0 {
						for victim := range live {
							c.remove(victim)
							delete(live, victim)
							break
						}
					}
					if rng.Intn(5) == 0 {
						time.Sleep(time.Duration(rng.Intn(500)) * time.Millisecond)
					}
					c.checkNodes(10)
				}
				time.Sleep(time.Minute) // all back-offs end
				if placed := c.checkNodes(10); placed != min(50, len(live)) {
					t.Fatalf("%d of %d pods are placed, 50 fit", placed, len(live))
				}
			})
		})
	}
}

// checkNodes fails the test if a node has more than limit pods. It returns how many pods are placed.
func (c *cluster) checkNodes(limit int) (placed int) {
	c.t.Helper()
	pods, err := client.List[*corev1.Pod](context.Background(), c.Client, client.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	per := map[string]int{}
	for _, p := range pods {
		if p.Spec.NodeName != "" {
			placed++
			if per[p.Spec.NodeName]++; per[p.Spec.NodeName] > limit {
				c.t.Fatalf("%s has %d pods, it has room for %d", p.Spec.NodeName, per[p.Spec.NodeName], limit)
			}
		}
	}
	return placed
}
