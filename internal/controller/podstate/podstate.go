// Package podstate answers the questions that several controllers ask about a pod: is it ready, available, still
// counted. The answers are those of Kubernetes' pod life cycle
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/).
//
// What flows through it: shared, immutable pods. What must stay true: pure functions of the pod and the time given.
// Tests: TestPlannersArePure (internal/laws), TestAvailable, TestActive.
package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Condition returns the pod's condition of type t, or nil.
func Condition(pod *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == t {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// Ready reports whether the pod's Ready condition is true.
func Ready(pod *corev1.Pod) bool {
	c := Condition(pod, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// ReadySince returns when a ready pod became ready; the zero time for one that is not.
func ReadySince(pod *corev1.Pod) time.Time {
	if c := Condition(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// Available reports whether the pod has been ready for minReadySeconds at now. If it is ready but not yet available, after
// is how long until it will be.
func Available(pod *corev1.Pod, minReadySeconds int32, now time.Time) (ok bool, after time.Duration) {
	if !Ready(pod) {
		return false, 0
	}
	if minReadySeconds == 0 {
		return true, 0
	}
	since := ReadySince(pod)
	if since.IsZero() {
		return false, 0
	}
	if wait := since.Add(time.Duration(minReadySeconds) * time.Second).Sub(now); wait > 0 {
		return false, wait
	}
	return true, 0
}

// Finished reports whether all containers of the pod have ended and none will start again.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Active reports whether the pod counts towards its owner's replicas: not finished, not being deleted.
func Active(pod *corev1.Pod) bool {
	return !Finished(pod) && pod.DeletionTimestamp == nil
}

// Terminating reports whether the pod is being deleted but still has containers to stop.
func Terminating(pod *corev1.Pod) bool {
	return !Finished(pod) && pod.DeletionTimestamp != nil
}
