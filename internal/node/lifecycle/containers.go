package lifecycle

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// containers plans init containers, sidecars and containers in a ready sandbox.
func (in *Input) containers(p *Plan, sb *Sandbox) {
	if !in.clearRound(p) {
		return
	}
	initialised := in.initialised(sb)
	for i := range in.Pod.Spec.EphemeralContainers {
		e := &in.Pod.Spec.EphemeralContainers[i]
		if in.Observed.Newest(e.Name) == nil {
			in.start(p, (*corev1.Container)(&e.EphemeralContainerCommon), nil)
		}
	}
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		if !in.initContainer(p, c, sb, initialised) && !initialised {
			return
		}
	}
	for i := range in.Pod.Spec.Containers {
		in.container(p, &in.Pod.Spec.Containers[i], false, in.Observed.Newest(in.Pod.Spec.Containers[i].Name))
	}
}

// initialised reports whether a regular container was started in this sandbox, so that init containers are over.
func (in *Input) initialised(sb *Sandbox) bool {
	for i := range in.Observed.Containers {
		c := &in.Observed.Containers[i]
		if c.SandboxID == sb.ID && c.State != Created && !in.outdated(c) && isRegular(in.Pod, c.Name) {
			return true
		}
	}
	return false
}

func isRegular(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return true
		}
	}
	return false
}

// initContainer plans one init container and reports whether the next one may come.
func (in *Input) initContainer(p *Plan, c *corev1.Container, sb *Sandbox, initialised bool) (next bool) {
	last := in.Observed.Newest(c.Name)
	if !IsSidecar(c) {
		if initialised {
			return true
		}
		if last != nil && last.SandboxID != sb.ID {
			last = nil // a new sandbox starts from the beginning
		}
		if last != nil && last.State == Exited && last.ExitCode == 0 && !in.outdated(last) {
			return true
		}
		in.container(p, c, true, last)
		return false
	}
	in.container(p, c, true, last)
	return last != nil && last.State == Running && in.health(last).Started && in.Busy.Stopping[last.ID].IsZero()
}

// container plans one container by its newest run.
func (in *Input) container(p *Plan, c *corev1.Container, init bool, last *Container) {
	switch {
	case last == nil:
		in.start(p, c, nil)
	case last.State == Created:
		if !in.Busy.Start {
			in.start(p, c, last)
		}
	case last.State == Unknown:
		stop(in, p, last, Stop{Reason: "ContainerStatusUnknown", Message: fmt.Sprintf("Container %s is in unknown state, try killing it before restart", c.Name), Grace: Grace(in.Pod)})
	case last.State == Running:
		if why := in.mustRestart(c, last); why != "" {
			s := Stop{Reason: "Killing", Message: why, Grace: Grace(in.Pod), Probe: in.health(last).Failed != ""}
			stop(in, p, last, s)
			return
		}
		in.resizeStop(p, c, last)
	case in.Memory.peek(c.Name).Resized == last.ID:
		in.start(p, c, last)
	case in.outdated(last) && ruleFor(c, last.ExitCode) != corev1.ContainerRestartRuleActionRestartAllContainers:
		in.start(p, c, nil) // it was killed, or had done its work: no crash
	case restarts(in.Pod, c, init, last.ExitCode):
		at := in.Memory.peek(c.Name).crashUntil(last)
		if in.Now.Before(at) {
			d := in.Memory.peek(c.Name).Crash.Delay
			p.wait(c.Name, Waiting{ReasonCrashLoop, fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				d, c.Name, in.Pod.Name, in.Pod.Namespace, in.Pod.UID)})
			p.wake(at)
			return
		}
		in.start(p, c, last)
	}
}

// mustRestart says why a running container has to end, or "".
func (in *Input) mustRestart(c *corev1.Container, run *Container) string {
	if run.Hash != "" && run.Hash != Hash(c) {
		return fmt.Sprintf("Container %s definition changed, will be restarted", c.Name)
	}
	switch failed := in.health(run).Failed; failed {
	case "":
		return ""
	default:
		if !restarts(in.Pod, c, false, 137) {
			return fmt.Sprintf("Container %s failed %s probe", c.Name, failed)
		}
		return fmt.Sprintf("Container %s failed %s probe, will be restarted", c.Name, failed)
	}
}

// start plans a start of c unless something is being started already or an earlier failure has to be waited for.
func (in *Input) start(p *Plan, c *corev1.Container, last *Container) {
	m := in.Memory.peek(c.Name)
	if in.Now.Before(m.RetryAt) {
		p.wake(m.RetryAt)
		if m.Waiting.Reason == ReasonErrImagePull {
			if shown := m.Failed.Add(pullShown); in.Now.Before(shown) {
				p.wake(shown)
			} else {
				m.Waiting = Waiting{ReasonImagePullBackOff, fmt.Sprintf("Back-off pulling image %q: %s: %s", c.Image, ReasonErrImagePull, m.Waiting.Message)}
			}
		}
		p.wait(c.Name, m.Waiting)
		return
	}
	if in.Busy.Start {
		return
	}
	s := Start{Name: c.Name, Attempt: RestartCount(in.Pod, in.Observed, c.Name), Round: in.round(), Last: last}
	if last != nil && last.State == Created {
		s.Replace, s.Last = last.ID, in.Observed.Previous(c.Name)
	}
	p.Start = append(p.Start, s)
}
