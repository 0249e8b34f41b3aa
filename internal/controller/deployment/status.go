package deployment

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the conditions, which kubectl rollout status and other tools look for.
const (
	reasonNewReplicaSet      = "NewReplicaSetCreated"
	reasonFoundNewReplicaSet = "FoundNewReplicaSet"
	reasonUpdated            = "ReplicaSetUpdated"
	reasonAvailable          = "NewReplicaSetAvailable"
	reasonTimedOut           = "ProgressDeadlineExceeded"
	reasonCreateError        = "ReplicaSetCreateError"
	reasonPaused             = "DeploymentPaused"
	reasonResumed            = "DeploymentResumed"
	reasonMinimum            = "MinimumReplicasAvailable"
	reasonBelowMinimum       = "MinimumReplicasUnavailable"
)

// hasDeadline reports whether lack of progress is to be reported.
func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != maxInt32
}

// complete reports whether all pods are of the new template and available, by status.
func complete(d *appsv1.Deployment, status *appsv1.DeploymentStatus) bool {
	n := *d.Spec.Replicas
	return status.UpdatedReplicas == n && status.Replicas == n && status.AvailableReplicas == n && status.ObservedGeneration >= d.Generation
}

// condition returns the planned condition of type t, or nil.
func (r *progress) condition(t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	return conditionOf(&r.status, t)
}

func conditionOf(status *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == t {
			return &status.Conditions[i]
		}
	}
	return nil
}

// setCondition sets a condition unless it has this status and reason already. The transition time changes with the status only.
func setCondition(status *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	if was := conditionOf(status, c.Type); was != nil {
		if was.Status == c.Status && was.Reason == c.Reason {
			return
		}
		if was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
	}
	dropCondition(status, c.Type)
	status.Conditions = append(status.Conditions, c)
}

func dropCondition(status *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	status.Conditions = slices.DeleteFunc(status.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

func newCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) appsv1.DeploymentCondition {
	at := metav1.NewTime(now)
	return appsv1.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message, LastUpdateTime: at, LastTransitionTime: at}
}

// setProgress sets the Progressing condition of a Deployment that has a progress deadline.
func (r *progress) setProgress(ok bool, reason, format string, args ...any) {
	if !hasDeadline(r.d) {
		return
	}
	status := corev1.ConditionFalse
	if ok {
		status = corev1.ConditionTrue
	}
	setCondition(&r.status, newCondition(appsv1.DeploymentProgressing, status, reason, fmt.Sprintf(format, args...), r.now))
}

// failedCreate is d's status after its new ReplicaSet could not be created.
func failedCreate(d *appsv1.Deployment, message string, now time.Time) appsv1.DeploymentStatus {
	status := *d.Status.DeepCopy()
	if hasDeadline(d) {
		setCondition(&status, newCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonCreateError, message, now))
	}
	return status
}

// pauseCondition notes in the Progressing condition that the Deployment was paused or resumed, so that the time it stood
// still does not count against its deadline. A missed deadline is not overwritten.
func (r *progress) pauseCondition() {
	cond := r.condition(appsv1.DeploymentProgressing)
	if !hasDeadline(r.d) || cond != nil && cond.Reason == reasonTimedOut {
		return
	}
	was := cond != nil && cond.Reason == reasonPaused
	switch {
	case r.d.Spec.Paused && !was:
		setCondition(&r.status, newCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused", r.now))
	case !r.d.Spec.Paused && was:
		setCondition(&r.status, newCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed", r.now))
	}
}

// count fills the numbers of the status and the Available condition.
func (r *progress) count() {
	st := &r.status
	st.ObservedGeneration = r.d.Generation
	st.Replicas, st.UpdatedReplicas, st.ReadyReplicas, st.AvailableReplicas = 0, 0, 0, 0
	terminating, known := int32(0), true
	for _, s := range r.all() {
		st.Replicas += s.Status.Replicas
		st.ReadyReplicas += s.Status.ReadyReplicas
		st.AvailableReplicas += s.Status.AvailableReplicas
		if n := s.Status.TerminatingReplicas; n != nil {
			terminating += *n
		} else if s.Status.ObservedGeneration != 0 {
			known = false // counted by somebody who does not count terminating pods
		}
	}
	st.TerminatingReplicas = nil
	if known {
		st.TerminatingReplicas = &terminating
	}
	if r.fresh != nil {
		st.UpdatedReplicas = r.fresh.Status.Replicas
	}
	st.UnavailableReplicas = max(total(r.all())-st.AvailableReplicas, 0)

	_, unavailable := bounds(r.d)
	if st.AvailableReplicas >= *r.d.Spec.Replicas-unavailable {
		setCondition(st, newCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue, reasonMinimum, "Deployment has minimum availability.", r.now))
	} else {
		setCondition(st, newCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse, reasonBelowMinimum, "Deployment does not have minimum availability.", r.now))
	}
}

// estimateProgress compares the counted status with the stored one and sets Progressing: done, getting on, or stuck for longer
// than the deadline. It also passes on why pods cannot be made.
func (r *progress) estimateProgress() {
	defer r.replicaFailure()
	if !hasDeadline(r.d) {
		dropCondition(&r.status, appsv1.DeploymentProgressing)
		return
	}
	cond := r.condition(appsv1.DeploymentProgressing)
	if r.status.Replicas == r.status.UpdatedReplicas && cond != nil && cond.Reason == reasonAvailable {
		return // that rollout is over; pods that come and go since are no progress
	}
	what := fmt.Sprintf("Deployment %q", r.d.Name)
	if r.fresh != nil {
		what = fmt.Sprintf("ReplicaSet %q", r.fresh.Name)
	}
	switch {
	case complete(r.d, &r.status):
		r.setProgress(true, reasonAvailable, "%s has successfully progressed.", what)
	case advanced(&r.d.Status, &r.status):
		c := newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, what+" is progressing.", r.now)
		if cond != nil && cond.Status == corev1.ConditionTrue {
			c.LastTransitionTime = cond.LastTransitionTime
		}
		// Replaced even where nothing but the time of the update is new: the deadline counts from there.
		dropCondition(&r.status, appsv1.DeploymentProgressing)
		r.status.Conditions = append(r.status.Conditions, c)
	case r.timedOut(cond):
		r.setProgress(false, reasonTimedOut, "%s has timed out progressing.", what)
	}
	r.deadline()
}

// advanced reports whether there are more new pods, fewer old ones, or more that are ready or available than before.
func advanced(was, is *appsv1.DeploymentStatus) bool {
	return is.UpdatedReplicas > was.UpdatedReplicas || is.Replicas-is.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		is.ReadyReplicas > was.ReadyReplicas || is.AvailableReplicas > was.AvailableReplicas
}

func (r *progress) timedOut(cond *appsv1.DeploymentCondition) bool {
	switch {
	case cond == nil || cond.Reason == reasonAvailable:
		return false
	case cond.Reason == reasonTimedOut:
		return true
	}
	return cond.LastUpdateTime.Add(r.deadlineLength()).Before(r.now)
}

func (r *progress) deadlineLength() time.Duration {
	return time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
}

// deadline asks for another look when the deadline has passed.
func (r *progress) deadline() {
	cond := r.condition(appsv1.DeploymentProgressing)
	if cond == nil || cond.Reason == reasonTimedOut || complete(r.d, &r.status) {
		return
	}
	// A second more, because stored times have no fractions.
	r.act.after = max(cond.LastUpdateTime.Add(r.deadlineLength()).Sub(r.now), 0) + time.Second
}

// replicaFailure copies the ReplicaFailure condition of the new ReplicaSet, else of an old one.
func (r *progress) replicaFailure() {
	sets := r.all()
	slices.Reverse(sets)
	for _, s := range sets {
		for _, c := range s.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				setCondition(&r.status, appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastUpdateTime: c.LastTransitionTime, LastTransitionTime: c.LastTransitionTime,
				})
				return
			}
		}
	}
	dropCondition(&r.status, appsv1.DeploymentReplicaFailure)
}
