package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

func queued(name string, priority int32) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PodSpec{Priority: &priority}}
}

func names(ps []*pending) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.pod.Name)
	}
	return out
}

func TestQueueOrdersByPriorityThenArrival(t *testing.T) {
	q := newQueue()
	q.add(queued("a", 0))
	q.add(queued("b", 5))
	q.add(queued("c", 0))
	q.add(queued("d", 5))
	q.remove(api.Key{Namespace: "ns", Name: "c"})
	now := time.Unix(0, 0)
	if got := names(q.pop(2, now)); !slices.Equal(got, []string{"b", "d"}) {
		t.Errorf("first %v", got)
	}
	if got := names(q.pop(2, now)); !slices.Equal(got, []string{"a"}) {
		t.Errorf("then %v", got)
	}
	if q.ready(now) {
		t.Error("ready though all are being bound")
	}
}

func TestBackoffGrowsToItsLimit(t *testing.T) {
	q := newQueue()
	q.add(queued("a", 0))
	now := time.Unix(0, 0)
	for i, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		ps := q.pop(1, now)
		if len(ps) != 1 {
			t.Fatalf("attempt %d: not ready", i)
		}
		q.fail(ps[0])
		if got := q.next().Sub(now); got != want*time.Second {
			t.Fatalf("attempt %d: pause %s, want %ds", i, got, want)
		}
		if q.ready(q.next().Add(-1)) || !q.ready(q.next()) {
			t.Fatalf("attempt %d: ready too early or too late", i)
		}
		now = q.next()
	}
}

func TestRejectedPodsWaitToBeWoken(t *testing.T) {
	for _, tc := range []struct {
		name  string
		sure  bool
		after time.Duration // of the rejection
		ready bool
	}{
		{"a node suits it: at once", true, 0, true},
		{"unsure: after the back-off", false, 0, false},
		{"unsure, back-off over", false, time.Second, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := newQueue()
			q.add(queued("a", 0))
			now := time.Unix(100, 0)
			p := q.pop(1, now)[0]
			q.reject(p, &placement.Rejection{})
			if q.ready(now.Add(time.Minute)) {
				t.Fatal("ready though nobody woke it")
			}
			now = now.Add(tc.after)
			q.wake(p, now, tc.sure)
			if got := q.ready(now); got != tc.ready {
				t.Errorf("ready %t, want %t", got, tc.ready)
			}
			if got := len(q.pop(1, now)) == 1; got != tc.ready {
				t.Errorf("popped %t, want %t", got, tc.ready)
			}
		})
	}
}

func TestForgottenPodsAreTriedAgain(t *testing.T) {
	q := newQueue()
	q.add(queued("a", 0))
	now := time.Unix(0, 0)
	q.reject(q.pop(1, now)[0], &placement.Rejection{})
	for end := now.Add(maxAside - time.Second); now.Before(end); now = now.Add(time.Second) {
		q.stale(now)
		if q.ready(now) {
			t.Fatalf("ready at %s", now)
		}
	}
	now = now.Add(staleCheck + time.Second)
	q.stale(now)
	if !q.ready(now) {
		t.Error("never tried again")
	}
}

// TestQueueLosesNothing holds the queue against the set of pods that it should hold, through random histories.
func TestQueueLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		all := map[api.Key]bool{}
		var flying []*pending
		now, serial := time.Unix(0, 0), 0
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				serial++
				p := q.add(queued(fmt.Sprintf("p%d", serial), int32(rapid.IntRange(0, 2).Draw(t, "priority"))))
				all[p.key] = true
			},
			"pop": func(t *rapid.T) { flying = append(flying, q.pop(rapid.IntRange(1, 3).Draw(t, "n"), now)...) },
			"land": func(t *rapid.T) {
				if len(flying) == 0 {
					t.Skip()
				}
				p := flying[0]
				flying = flying[1:]
				switch rapid.IntRange(0, 2).Draw(t, "how") {
				case 0:
					q.remove(p.key)
					delete(all, p.key)
				case 1:
					q.fail(p)
				case 2:
					q.reject(p, &placement.Rejection{})
				}
			},
			"wake": func(t *rapid.T) {
				sure := rapid.Bool().Draw(t, "sure")
				for _, p := range q.aside {
					q.wake(p, now, sure)
				}
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
				q.stale(now)
			},
			"": func(t *rapid.T) {
				if got := len(q.active) + len(q.backoff) + len(q.aside) + len(flying); got != len(all) || len(q.pods) != len(all) {
					t.Fatalf("%d in places, %d known, want %d", got, len(q.pods), len(all))
				}
				for i, p := range q.active {
					if p.index != i || p.place != active || i > 0 && q.active.Less(i, (i-1)/2) {
						t.Fatalf("the active heap is broken at %d", i)
					}
				}
			},
		})
	})
}
