package scheduler

import (
	"container/heap"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// Times of kube-scheduler's queue (podInitialBackoffSeconds, podMaxBackoffSeconds, podMaxInUnschedulablePodsDuration).
const (
	initialBackoff = time.Second
	maxBackoff     = 10 * time.Second
	maxAside       = 5 * time.Minute
	staleCheck     = 30 * time.Second
)

// place in the queue.
type place int

const (
	active  place = iota // to be placed now, in order
	backoff              // to become active at a time
	aside                // rejected; waits for something to change
	flying               // being bound
)

// pending is a pod without a node.
type pending struct {
	pod       *corev1.Pod
	key       api.Key
	place     place
	seq       uint64 // when it became active
	index     int    // in the heap of its place
	attempts  int
	entered   time.Time // when it came into the queue
	last      time.Time // of the last attempt
	wakes     time.Time // in backoff
	hurry     bool      // need not wait out its back-off if nothing else is to be done: a node suits it
	rejection *placement.Rejection
}

// queue holds the pods that have no node. It is pure: the time is told, nothing runs.
type queue struct {
	pods    map[api.Key]*pending
	active  activeHeap
	backoff backoffHeap
	aside   map[api.Key]*pending
	seq     uint64
	staleAt time.Time
}

func newQueue() *queue {
	return &queue{pods: map[api.Key]*pending{}, aside: map[api.Key]*pending{}}
}

// add enqueues a pod not yet known.
func (q *queue) add(pod *corev1.Pod) *pending {
	p := &pending{pod: pod, key: api.KeyOf(pod)}
	q.pods[p.key] = p
	q.activate(p)
	return p
}

// remove forgets a pod.
func (q *queue) remove(key api.Key) {
	if p := q.pods[key]; p != nil {
		q.take(p)
		delete(q.pods, key)
	}
}

// take takes a pod out of the place it is in.
func (q *queue) take(p *pending) {
	switch p.place {
	case active:
		heap.Remove(&q.active, p.index)
	case backoff:
		heap.Remove(&q.backoff, p.index)
	case aside:
		delete(q.aside, p.key)
	}
	p.place = flying
}

func (q *queue) activate(p *pending) {
	q.seq++
	p.place, p.seq = active, q.seq
	heap.Push(&q.active, p)
}

// pop returns up to n pods to be placed now, the most important first. When none is active, those for which a
// node has been found meanwhile do not wait out their back-off: there is nothing they could disturb.
func (q *queue) pop(n int, now time.Time) []*pending {
	for len(q.backoff) > 0 && !q.backoff[0].wakes.After(now) {
		p := heap.Pop(&q.backoff).(*pending)
		q.activate(p)
	}
	if len(q.active) == 0 {
		for _, p := range append(backoffHeap(nil), q.backoff...) {
			if p.hurry {
				q.take(p)
				q.activate(p)
			}
		}
	}
	var out []*pending
	for len(q.active) > 0 && len(out) < n {
		p := heap.Pop(&q.active).(*pending)
		p.place = flying
		p.attempts++
		p.last = now
		out = append(out, p)
	}
	return out
}

// reject puts a popped pod aside until something that can help happens.
func (q *queue) reject(p *pending, why *placement.Rejection) {
	p.rejection = why
	p.place = aside
	q.aside[p.key] = p
}

// fail puts a popped pod back after an error, to be tried again after a while.
func (q *queue) fail(p *pending) {
	p.hurry, p.rejection = false, nil
	q.delay(p)
}

// wake takes a pod that was put aside back into consideration. sure reports whether a node suits it now.
func (q *queue) wake(p *pending, now time.Time, sure bool) {
	if p.place != aside {
		return
	}
	q.take(p)
	p.hurry = sure
	if p.last.Add(p.pause()).After(now) {
		q.delay(p)
	} else {
		q.activate(p)
	}
}

// touch makes a pod whose own spec changed active at once.
func (q *queue) touch(p *pending) {
	if p.place == aside || p.place == backoff {
		q.take(p)
		q.activate(p)
	}
}

func (q *queue) delay(p *pending) {
	p.place = backoff
	p.wakes = p.last.Add(p.pause())
	heap.Push(&q.backoff, p)
}

// pause grows from initialBackoff with each attempt, to maxBackoff.
func (p *pending) pause() time.Duration {
	d := initialBackoff
	for i := 1; i < p.attempts && d < maxBackoff; i++ {
		d *= 2
	}
	return min(d, maxBackoff)
}

// ready reports whether pop would return something.
func (q *queue) ready(now time.Time) bool {
	if len(q.active) > 0 {
		return true
	}
	for _, p := range q.backoff {
		if p.hurry || !p.wakes.After(now) {
			return true
		}
	}
	return false
}

// stale wakes the pods that were aside for very long, in case an event that could have helped was missed. It looks only
// every staleCheck.
func (q *queue) stale(now time.Time) {
	if len(q.aside) == 0 || now.Before(q.staleAt) {
		return
	}
	q.staleAt = now.Add(staleCheck)
	for _, p := range q.aside {
		if now.Sub(p.last) >= maxAside {
			q.wake(p, now, false)
		}
	}
}

// next returns when to look again though nothing happens; the zero time if there is no need.
func (q *queue) next() time.Time {
	var t time.Time
	if len(q.backoff) > 0 {
		t = q.backoff[0].wakes
	}
	if len(q.aside) > 0 && (t.IsZero() || q.staleAt.Before(t)) {
		t = q.staleAt
	}
	return t
}

// activeHeap orders by priority, then by time of arrival.
type activeHeap []*pending

func (h activeHeap) Len() int { return len(h) }
func (h activeHeap) Less(i, j int) bool {
	if a, b := priorityOf(h[i].pod), priorityOf(h[j].pod); a != b {
		return a > b
	}
	return h[i].seq < h[j].seq
}
func (h activeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *activeHeap) Push(x any)   { p := x.(*pending); p.index = len(*h); *h = append(*h, p) }
func (h *activeHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}

// backoffHeap orders by when the pods wake.
type backoffHeap []*pending

func (h backoffHeap) Len() int           { return len(h) }
func (h backoffHeap) Less(i, j int) bool { return h[i].wakes.Before(h[j].wakes) }
func (h backoffHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *backoffHeap) Push(x any)        { p := x.(*pending); p.index = len(*h); *h = append(*h, p) }
func (h *backoffHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}

func priorityOf(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}
