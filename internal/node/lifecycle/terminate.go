package lifecycle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// forcedGrace is what a pod is given that the API removed while it ran: it was deleted by force.
const forcedGrace = 2 * time.Second

// finished reports whether the pod has run to its end by itself: every regular container has exited and none is started
// again, or an init container failed for good. Sidecars may still run; they end now.
func finished(in *Input) bool {
	if initFailed(in) {
		return true
	}
	for i := range in.Pod.Spec.Containers {
		c := &in.Pod.Spec.Containers[i]
		run := in.Observed.Newest(c.Name)
		if run == nil || run.State != Exited || in.outdated(run) || restarts(in.Pod, c, false, run.ExitCode) {
			return false
		}
	}
	return true
}

// initFailed reports whether an init container failed and is not started again.
func initFailed(in *Input) bool {
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		run := in.Observed.Newest(c.Name)
		if run != nil && run.State == Exited && run.ExitCode != 0 && !in.outdated(run) && !restarts(in.Pod, c, true, run.ExitCode) {
			return true
		}
	}
	return false
}

// terminate plans the end of a pod: containers, then sidecars in reverse order (KEP-753), then sandbox and volumes, then,
// if the API wants the pod gone, everything else.
func terminate(in *Input, p *Plan) {
	since := in.Memory.Terminating
	if since.IsZero() {
		since = in.Now
	}
	// What is left of the time the pod was given; sidecars come last but get at least two seconds.
	grace := Grace(in.Pod)
	if in.Memory.Gone {
		grace = min(grace, forcedGrace)
	}
	if in.Memory.Hurry {
		grace = min(grace, time.Second)
	}
	left := max(since.Add(grace).Sub(in.Now), time.Second)
	if at := since.Add(notice(in)); in.Now.Before(at) && len(in.Busy.Stopping) == 0 {
		p.wake(at)
		return
	}
	running := false
	for _, run := range in.runningFirst() {
		running = true
		stop(in, p, run, Stop{Reason: "Killing", Message: fmt.Sprintf("Stopping container %s", run.Name), Grace: left})
	}
	for i := len(in.Pod.Spec.InitContainers) - 1; i >= 0 && !running; i-- {
		c := &in.Pod.Spec.InitContainers[i]
		if run := in.Observed.Newest(c.Name); run != nil && (run.State == Running || run.State == Unknown) {
			running = true
			stop(in, p, run, Stop{Reason: "Killing", Message: fmt.Sprintf("Stopping container %s", run.Name), Grace: max(left, 2*time.Second)})
		}
	}
	if running || in.Busy.Start || in.Busy.Sandbox || in.Busy.Teardown || len(in.Busy.Stopping) > 0 {
		return
	}
	switch {
	case !in.Memory.TornDown:
		p.Teardown = true
	case (in.Pod.DeletionTimestamp != nil || in.Memory.Gone) && !in.Memory.Removed:
		p.Remove = true
	default:
		p.Finish = true
	}
}

// endpointNotice is how long a Ready pod goes on serving after it was deleted. Its Services stop sending it new connections at
// once, but the news takes a moment to reach the nodes' tables; a program that stops listening on SIGTERM would refuse
// what arrives until then. It is part of the grace period.
const endpointNotice = 300 * time.Millisecond

// notice returns how long the pod goes on serving. A pod with a preStop hook has its own way, one that has to end within a second
// or that does not serve needs none.
func notice(in *Input) time.Duration {
	if in.Pod.DeletionTimestamp == nil || in.Memory.Gone || Grace(in.Pod) <= time.Second || !serves(in) {
		return 0
	}
	return endpointNotice
}

// serves reports whether Services may send something to the pod: it is Ready in the API and its containers run.
func serves(in *Input) bool {
	isReady := false
	for i := range in.Pod.Status.Conditions {
		if c := &in.Pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			isReady = c.Status == corev1.ConditionTrue
		}
	}
	for i := range in.Pod.Spec.Containers {
		c := &in.Pod.Spec.Containers[i]
		run := in.Observed.Newest(c.Name)
		if !isReady || run == nil || run.State != Running || c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
			return false
		}
	}
	return isReady
}

// runningFirst returns the running containers that end first: all but sidecars.
func (in *Input) runningFirst() []*Container {
	var out []*Container
	for i := range in.Observed.Containers {
		run := &in.Observed.Containers[i]
		if (run.State == Running || run.State == Unknown) && !isSidecarName(in.Pod, run.Name) {
			out = append(out, run)
		}
	}
	return out
}

func isSidecarName(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == name {
			return IsSidecar(c)
		}
	}
	return false
}
