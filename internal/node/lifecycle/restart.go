package lifecycle

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/amount"
)

// Hash returns what a running container must match to be kept: name and image, the only parts of a container that can
// change in place and need a new one.
func Hash(c *corev1.Container) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", c.Name, c.Image)
	return strconv.FormatUint(h.Sum64(), 16)
}

// restarts reports whether a container that exited with code is started again: the container's own rules and policy first
// (KEP-5307), then the pod's.
func restarts(pod *corev1.Pod, c *corev1.Container, init bool, code int32) bool {
	if ruleFor(c, code) != "" {
		return true // this container, or all of them (KEP-5532)
	}
	policy := corev1.ContainerRestartPolicy(pod.Spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = *c.RestartPolicy
	}
	switch policy {
	case corev1.ContainerRestartPolicyNever:
		return false
	case corev1.ContainerRestartPolicyOnFailure:
		return code != 0
	}
	// An init container (other than a sidecar) that succeeded is done.
	return !init || IsSidecar(c) || code != 0
}

// RestartCount returns how often the container was restarted before its next run.
func RestartCount(pod *corev1.Pod, o *Observed, name string) int32 {
	if c := o.Newest(name); c != nil {
		if c.State == Created {
			return c.Attempt // it never ran
		}
		return c.Attempt + 1
	}
	if s := apiStatus(pod, name); s != nil && (s.ContainerID != "" || s.RestartCount > 0) {
		return s.RestartCount + 1
	}
	return 0
}

// apiStatus returns the container's status as the API has it, or nil.
func apiStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// Restarted notes that a container is started after the run last ended: the next crash waits longer.
func (m *ContainerMemory) Restarted(last *Container, now time.Time) {
	if last != nil && last.State == Exited {
		m.Crash = m.Crash.Next(last.FinishedAt, now)
	}
}

// crashUntil returns when a container whose last run is c may be started again.
func (m ContainerMemory) crashUntil(c *Container) time.Time {
	return m.Crash.Until(c.FinishedAt)
}

// Grace returns how long the pod's containers are given to end.
func Grace(pod *corev1.Pod) time.Duration {
	s := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		s = *pod.Spec.TerminationGracePeriodSeconds
	}
	if pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil {
		s = *pod.DeletionGracePeriodSeconds
	}
	// Even a forced end lets SIGTERM be seen, as the kubelet does.
	return amount.Seconds(max(s, 1))
}
