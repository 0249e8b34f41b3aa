package statefulset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// partition is how many of the first ordinals an update leaves alone.
func (s *step) partition() int {
	if ru := s.set.Spec.UpdateStrategy.RollingUpdate; ru != nil && ru.Partition != nil {
		return int(*ru.Partition)
	}
	return 0
}

// maxUnavailable is how many pods an update may make unavailable: at least one.
func (s *step) maxUnavailable() int {
	ru := s.set.Spec.UpdateStrategy.RollingUpdate
	if ru == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(ru.MaxUnavailable, intstr.FromInt32(1)), int(*s.set.Spec.Replicas), false)
	if err != nil {
		return 1 // validation refuses it
	}
	return max(n, 1)
}

// old returns the pods that an update is to replace, highest ordinal first.
func (s *step) old() []member {
	var out []member
	for _, m := range slices.Backward(s.replicas) {
		if m.ordinal >= s.start()+s.partition() && m.DeletionTimestamp == nil && !podstate.Finished(m.Pod) && revisionOf(m.Pod) != s.obs.update.name {
			out = append(out, m)
		}
	}
	return out
}

// roll deletes pods of old revisions, highest ordinal first, as many as may be unavailable. With parallel management, those that are not
// available anyway go at once, so that what is left of the budget is spent on pods that do their work.
func (s *step) roll() {
	if s.set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateStatefulSetStrategyType {
		return
	}
	unavailable := int(*s.set.Spec.Replicas)
	for _, m := range s.replicas {
		if s.available(m.Pod) && m.DeletionTimestamp == nil {
			unavailable--
		}
	}
	budget := s.maxUnavailable() - unavailable
	for _, m := range s.old() {
		switch {
		case s.parallel() && !s.available(m.Pod):
			s.act.outdated = append(s.act.outdated, m.Pod)
		case budget > 0:
			s.act.outdated = append(s.act.outdated, m.Pod)
			budget--
		}
	}
}

// replaceBroken deletes pods of old revisions that do not work, where ordered management waits for one of them. It would wait for ever
// for a revision that cannot become ready, although the template has been mended (kubernetes#67250). A pod on trial, of the revision
// that is wanted, counts as unavailable: no further one goes before it is known to work.
func (s *step) replaceBroken() {
	if s.set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateStatefulSetStrategyType || len(s.act.replace) > 0 {
		return
	}
	budget := s.maxUnavailable()
	for _, m := range s.replicas {
		if m.DeletionTimestamp != nil || revisionOf(m.Pod) == s.obs.update.name && !s.available(m.Pod) {
			budget--
		}
	}
	for _, m := range s.old() {
		if budget > 0 && s.broken(m.Pod) {
			s.act.replace = append(s.act.replace, m.Pod)
			budget--
		}
	}
}

// neverReady is how soon after its start a pod that has never been ready is reported not to be.
const neverReady = 2 * time.Second

// broken reports whether there is no use in waiting for a pod of an old revision: it has not become ready, its containers do not run,
// or it is of a revision that the set has given up. One of the revision before the update that has merely lost its readiness is
// waited for, as it may hold what the others need.
func (s *step) broken(p *corev1.Pod) bool {
	if podstate.Ready(p) {
		return false
	}
	if p.Status.Phase == corev1.PodPending || p.Status.StartTime == nil || revisionOf(p) != s.obs.current.name {
		return true
	}
	if c := podstate.Condition(p, corev1.PodReady); c == nil || c.LastTransitionTime.Sub(p.Status.StartTime.Time) < neverReady {
		return true
	}
	return slices.ContainsFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Running == nil })
}

// count fills the status. What is being deleted is still one of the replicas.
func (s *step) count() {
	collisions := s.obs.collisions
	st := appsv1.StatefulSetStatus{
		ObservedGeneration: s.set.Generation, CurrentRevision: s.obs.current.name, UpdateRevision: s.obs.update.name,
		CollisionCount: &collisions, Conditions: s.set.Status.Conditions,
	}
	for _, m := range slices.Concat(s.replicas, s.condemned) {
		st.Replicas++
		if m.Status.Phase == corev1.PodRunning && podstate.Ready(m.Pod) {
			st.ReadyReplicas++
			if s.available(m.Pod) {
				st.AvailableReplicas++
			}
		}
		if m.DeletionTimestamp != nil {
			continue
		}
		if revisionOf(m.Pod) == st.CurrentRevision {
			st.CurrentReplicas++
		}
		if revisionOf(m.Pod) == st.UpdateRevision {
			st.UpdatedReplicas++
		}
	}
	if n := *s.set.Spec.Replicas; st.UpdatedReplicas == n && st.ReadyReplicas == n && st.Replicas == n && len(s.condemned) == 0 {
		st.CurrentReplicas, st.CurrentRevision = n, st.UpdateRevision // the update is over
	}
	s.act.status = st
}
