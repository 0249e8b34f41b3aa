package lifecycle

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerStatus returns the status of one container. idle is the reason of one that was never started.
func containerStatus(in *Input, c *corev1.Container, init bool, waiting map[string]Waiting, idle string) corev1.ContainerStatus {
	s := runStatus(in, c, init, waiting, idle)
	in.keepEnd(&s, c)
	s.VolumeMounts = mounts(in, c)
	return s
}

// runStatus is the status by the container's newest run.
func runStatus(in *Input, c *corev1.Container, init bool, waiting map[string]Waiting, idle string) corev1.ContainerStatus {
	old := apiStatus(in.Pod, c.Name)
	run := in.Observed.Newest(c.Name)
	no := false
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: &no}
	if run != nil && run.State == Created {
		run = in.Observed.Previous(c.Name) // a start in progress
	}
	if run == nil {
		neverRan(in, &s, c, old, waiting, idle)
		return s
	}
	s.RestartCount, s.ContainerID, s.ImageID = run.Attempt, in.Node.ContainerID(run.ID), run.ImageID
	if run.Image != "" {
		s.Image = run.Image
	}
	if prev := in.Observed.Previous(c.Name); prev != nil && prev.ID != run.ID && prev.State == Exited {
		s.LastTerminationState.Terminated = in.terminated(prev)
	} else if old != nil && old.ContainerID != "" && old.ContainerID != s.ContainerID && old.State.Terminated != nil {
		s.LastTerminationState = old.State // the run before is gone from the runtime already
	} else if old != nil {
		s.LastTerminationState = old.LastTerminationState
	}
	switch run.State {
	case Running:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(run.StartedAt.Truncate(1e9))}
		h := in.health(run)
		s.Started, s.Ready = &h.Started, h.Ready && h.Started && (!init || IsSidecar(c))
		s.Resources = resources(c, run)
		s.AllocatedResources = c.Resources.Requests
		s.User = user(run)
	case Exited:
		t := in.terminated(run)
		s.State.Terminated = t
		s.Ready = init && !IsSidecar(c) && t.ExitCode == 0
		if w, ok := waiting[c.Name]; ok {
			s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}}
			s.LastTerminationState.Terminated = t
			s.Ready = false
		}
	default:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerStatusUnknown", Message: "The runtime does not know the state of the container"}
	}
	return s
}

// neverRan fills the status of a container of which the runtime knows no run.
func neverRan(in *Input, s *corev1.ContainerStatus, c *corev1.Container, old *corev1.ContainerStatus, waiting map[string]Waiting, idle string) {
	if old != nil {
		s.RestartCount, s.LastTerminationState = old.RestartCount, old.LastTerminationState
		switch {
		case old.State.Terminated != nil:
			if ending(in.Pod) || !in.Memory.Terminating.IsZero() {
				*s = *old // its containers are removed; what they ended with stays
				return
			}
			s.LastTerminationState = old.State
		case old.State.Running != nil:
			lost := &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137, ContainerID: old.ContainerID,
				Message: "The container could not be located when the pod was terminated or its runtime restarted", StartedAt: old.State.Running.StartedAt}
			s.ContainerID, s.ImageID = old.ContainerID, old.ImageID
			if ending(in.Pod) || !in.Memory.Terminating.IsZero() {
				s.State.Terminated = lost
				return
			}
			s.LastTerminationState.Terminated = lost
		}
	}
	w, ok := waiting[c.Name]
	if !ok {
		w = in.Memory.peek(c.Name).Waiting
	}
	if w.Reason == "" {
		w.Reason = idle
	}
	s.State.Waiting = &corev1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}
}

func (in *Input) terminated(run *Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: run.ExitCode, Reason: run.Reason, Message: run.Message, ContainerID: in.Node.ContainerID(run.ID),
		StartedAt: metav1.NewTime(run.StartedAt.Truncate(1e9)), FinishedAt: metav1.NewTime(run.FinishedAt.Truncate(1e9)),
	}
	if t.Reason == "" {
		t.Reason = "Error"
		if run.ExitCode == 0 {
			t.Reason = "Completed"
		}
	}
	return t
}

func user(run *Container) *corev1.ContainerUser {
	if run.User == nil || run.User.Linux == nil {
		return nil
	}
	l := run.User.Linux
	return &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: l.Uid, GID: l.Gid, SupplementalGroups: l.SupplementalGroups}}
}
