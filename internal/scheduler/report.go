package scheduler

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// Events are limited: eventBurst at once, eventRate a second. What goes beyond is dropped and counted; the pods' conditions tell the
// same.
const (
	eventBurst = 1000
	eventRate  = 100
)

// reporter tells the cluster what the loop decided: conditions, events, evictions. It takes everything at once and writes
// it in bulk while the loop goes on.
type reporter struct {
	s       *Scheduler
	dropped atomic.Int64
	signal  chan struct{} // of size 1

	mu       sync.Mutex
	statuses map[api.Key]placement.Decision // rejections to be told, the latest for each pod
	evicts   []placement.Decision           // rejections with victims
	events   []event.Event
	tokens   float64
	filled   time.Time
}

func newReporter(s *Scheduler) *reporter {
	return &reporter{s: s, signal: make(chan struct{}, 1), statuses: map[api.Key]placement.Decision{}, tokens: eventBurst}
}

// reject records a pod that was not placed.
func (r *reporter) reject(d placement.Decision) {
	msg := d.Rejection.Message()
	r.mu.Lock()
	r.statuses[api.KeyOf(d.Pod)] = d
	if len(d.Rejection.Victims) > 0 {
		r.evicts = append(r.evicts, d)
	}
	r.add(func() event.Event { return event.Warning(d.Pod, "FailedScheduling", "%s", msg) })
	r.mu.Unlock()
	r.poke()
}

// scheduled records pods that were bound.
func (r *reporter) scheduled(flights []flight, results []client.Result) {
	r.mu.Lock()
	for i, f := range flights {
		if results[i].Err == nil {
			delete(r.statuses, f.key)
			r.add(func() event.Event {
				return event.Normal(f.pod, "Scheduled", "Successfully assigned %s to %s", f.key, f.node)
			})
		}
	}
	r.mu.Unlock()
	r.poke()
}

// add queues an event unless there are too many. r.mu is held.
func (r *reporter) add(build func() event.Event) {
	now := time.Now()
	if !r.filled.IsZero() {
		r.tokens = min(eventBurst, r.tokens+now.Sub(r.filled).Seconds()*eventRate)
	}
	r.filled = now
	if r.tokens < 1 {
		r.dropped.Add(1)
		return
	}
	r.tokens--
	r.events = append(r.events, build())
}

func (r *reporter) poke() {
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

// run writes what was reported, until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	for {
		select {
		case <-r.signal:
		case <-ctx.Done():
			return nil
		}
		r.mu.Lock()
		statuses, evicts, events := r.statuses, r.evicts, r.events
		r.statuses, r.evicts, r.events = map[api.Key]placement.Decision{}, nil, nil
		r.mu.Unlock()

		r.writeStatuses(ctx, statuses)
		for _, d := range evicts {
			r.evict(ctx, d)
		}
		for len(events) > 0 && ctx.Err() == nil {
			n := min(maxBatch, len(events))
			event.Write(ctx, r.s.client, r.s.name, time.Now(), events[:n]...)
			events = events[n:]
		}
	}
}

// writeStatuses writes the PodScheduled conditions and nominations of rejected pods, in bulk.
func (r *reporter) writeStatuses(ctx context.Context, statuses map[api.Key]placement.Decision) {
	var objs []api.Object
	var decisions []placement.Decision
	flush := func() {
		for i, res := range r.s.client.UpdateMany(ctx, objs, "status") {
			d := decisions[i]
			err := res.Err
			if apierrors.IsConflict(err) {
				_, err = client.Mutate(ctx, r.s.client, api.KeyOf(d.Pod), "status", func(pod *corev1.Pod) bool {
					return pod.UID == d.Pod.UID && pod.Spec.NodeName == "" && setRejected(pod, d.Rejection, time.Now())
				})
			}
			if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
				r.s.log.Warn("pod status not written", "pod", api.KeyOf(d.Pod).String(), "err", err)
			}
		}
		objs, decisions = nil, nil
	}
	for key, d := range statuses {
		pod := d.Pod.DeepCopy()
		if !setRejected(pod, d.Rejection, time.Now()) {
			continue
		}
		r.s.log.Info("pod not placed", "pod", key.String(), "reason", d.Rejection.Message())
		objs, decisions = append(objs, pod), append(decisions, d)
		if len(objs) == maxBatch {
			flush()
		}
	}
	if len(objs) > 0 {
		flush()
	}
}

// setRejected notes a rejection in a pod's status. It reports whether that changes anything.
func setRejected(pod *corev1.Pod, why *placement.Rejection, now time.Time) bool {
	nominated := why.Nominated
	if why.Waiting {
		nominated = pod.Status.NominatedNodeName
	}
	changed := pod.Status.NominatedNodeName != nominated
	pod.Status.NominatedNodeName = nominated
	return setCondition(pod, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
		Reason: corev1.PodReasonUnschedulable, Message: why.Message(),
	}, now) || changed
}

// setCondition adds or updates a condition. It reports whether that changes anything.
func setCondition(pod *corev1.Pod, c corev1.PodCondition, now time.Time) bool {
	c.LastTransitionTime = metav1.NewTime(now)
	c.ObservedGeneration = pod.Generation
	for i := range pod.Status.Conditions {
		old := &pod.Status.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
			return false
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
		return true
	}
	pod.Status.Conditions = append(pod.Status.Conditions, c)
	return true
}
