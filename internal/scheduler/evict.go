package scheduler

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// evict removes the victims of a preemption gracefully, each marked with the condition DisruptionTarget (KEP-3329).
func (r *reporter) evict(ctx context.Context, d placement.Decision) {
	var events []event.Event
	for _, victim := range d.Rejection.Victims {
		if victim.DeletionTimestamp != nil {
			continue // on its way already
		}
		if err := r.evictOne(ctx, victim); err != nil {
			if !apierrors.IsNotFound(err) && ctx.Err() == nil {
				r.s.log.Warn("victim not deleted", "pod", api.KeyOf(victim).String(), "for", api.KeyOf(d.Pod).String(), "err", err)
				r.s.call(ctx, func() { r.s.spared(victim, d.Pod) })
			}
			continue
		}
		r.s.log.Info("preempted", "pod", api.KeyOf(victim).String(), "for", api.KeyOf(d.Pod).String(), "node", d.Rejection.Nominated)
		events = append(events, event.Normal(victim, "Preempted", "Preempted by pod %s on node %s", d.Pod.UID, d.Rejection.Nominated))
	}
	event.Write(ctx, r.s.client, r.s.name, time.Now(), events...)
}

func (r *reporter) evictOne(ctx context.Context, victim *corev1.Pod) error {
	key := api.KeyOf(victim)
	_, err := client.Mutate(ctx, r.s.client, key, "status", func(pod *corev1.Pod) bool {
		return pod.UID == victim.UID && setCondition(pod, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message: r.s.name + ": preempting to accommodate a higher priority pod",
		}, time.Now())
	})
	if err != nil {
		return err
	}
	uid := victim.UID
	return client.Delete[*corev1.Pod](ctx, r.s.client, key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
}

// spared learns that a victim could not be deleted: the pod that waits for its room looks again.
func (s *Scheduler) spared(victim, waiting *corev1.Pod) {
	s.state.Spared(victim)
	s.state.Unnominate(waiting.UID)
	if p := s.queue.pods[api.KeyOf(waiting)]; p != nil && p.place == aside {
		s.queue.take(p)
		s.queue.fail(p)
	}
}
