package job

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// The pause after a failed pod: the first, which doubles with every failure in a row, and the longest.
const (
	firstPause   = 10 * time.Second
	longestPause = 10 * time.Minute
)

// backoff is how often in a row pods of a job failed, and when the last of them did.
type backoff struct {
	failures int
	last     time.Time
}

// with returns b after some pods have succeeded and others failed: a success forgets the failures before it.
func (b backoff) with(succeeded, failed []*corev1.Pod) backoff {
	var success time.Time
	for _, p := range succeeded {
		success = latest(success, endOf(p))
	}
	if len(succeeded) > 0 {
		b = backoff{}
	}
	for _, p := range failed {
		if end := endOf(p); len(succeeded) == 0 || end.After(success) {
			b.failures++
			b.last = latest(b.last, end)
		}
	}
	return b
}

// left returns how long it is from now until the next pod may be made.
func (b backoff) left(now time.Time) time.Duration {
	if b.failures == 0 {
		return 0
	}
	pause := firstPause
	for i := 1; i < b.failures && pause < longestPause; i++ {
		pause *= 2
	}
	return max(0, b.last.Add(min(pause, longestPause)).Sub(now))
}

// endOf returns when a pod ended, as well as can be told: when the last of its containers did, when it ceased to be ready, when its
// deletion began, or when it was made.
func endOf(pod *corev1.Pod) time.Time {
	if end := containersEnd(pod); !end.IsZero() {
		return end
	}
	if c := podstate.Condition(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if pod.DeletionTimestamp != nil {
		return pod.DeletionTimestamp.Add(-amount.Seconds(ptr.Deref(pod.DeletionGracePeriodSeconds, 0)))
	}
	return pod.CreationTimestamp.Time
}

// containersEnd returns when the last container and sidecar ended, or the zero time while one has not.
func containersEnd(pod *corev1.Pod) (end time.Time) {
	sidecar := func(name string) bool {
		return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
			return c.Name == name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		})
	}
	statuses := slices.Clone(pod.Status.ContainerStatuses)
	for _, s := range pod.Status.InitContainerStatuses {
		if sidecar(s.Name) {
			statuses = append(statuses, s)
		}
	}
	for _, s := range statuses {
		if s.State.Terminated == nil || s.State.Terminated.FinishedAt.IsZero() {
			return time.Time{}
		}
		end = latest(end, s.State.Terminated.FinishedAt.Time)
	}
	return end
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
