package lifecycle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Start asks for a container to be created and started.
type Start struct {
	Name    string
	Attempt int32
	// Replace is a container that was created and never ran (the agent died in between), to be removed first.
	Replace string
	// Last is the run before, for the crash back-off.
	Last *Container
}

// Stop asks for a running container to be ended.
type Stop struct {
	ID, Name        string
	Reason, Message string
	Grace           time.Duration
	// Probe is true when a failed probe asked for it: its own terminationGracePeriodSeconds counts (KEP-2238).
	Probe bool
	// Hurry is true when the container is being stopped already and gets less time now.
	Hurry bool
}

// Plan is what to do next for one pod. The zero Plan means: nothing.
type Plan struct {
	// Fail is set when the pod is to end for a reason of the node's.
	Fail *Failure
	// Terminating is true once the pod is ending, for whatever reason.
	Terminating bool
	// Sandbox asks for a new sandbox with this Attempt, after stopping the sandboxes in StopSandboxes.
	Sandbox       bool
	Attempt       uint32
	StopSandboxes []string
	Start         []Start
	Stop          []Stop
	// Teardown asks to stop all sandboxes and give back volumes and cgroups; Remove to remove what is left in the
	// runtime; Finish to report the pod's end to the API (and delete it there, if it is to be deleted).
	Teardown, Remove, Finish bool
	// Prune names dead containers that nobody needs any more, PruneSandboxes dead sandboxes that are empty.
	Prune, PruneSandboxes []string
	// Waiting says, by container name, why it is not started now.
	Waiting map[string]Waiting
	// Wake is when to look again even if nothing happens; zero for never.
	Wake time.Time
}

func (p *Plan) wake(t time.Time) {
	if !t.IsZero() && (p.Wake.IsZero() || t.Before(p.Wake)) {
		p.Wake = t
	}
}

func (p *Plan) wait(name string, w Waiting) {
	if p.Waiting == nil {
		p.Waiting = map[string]Waiting{}
	}
	p.Waiting[name] = w
}

// Decide returns what to do next.
func Decide(in Input) Plan {
	var p Plan
	failure := in.Memory.Failure
	if failure == nil && !ending(in.Pod) && !in.Memory.Gone {
		if f, at := deadline(&in); f != nil {
			p.Fail, failure = f, f
		} else {
			p.wake(at)
		}
	}
	if failure != nil || ending(in.Pod) || in.Memory.Gone || !in.Memory.Terminating.IsZero() || finished(&in) {
		p.Terminating = true
		terminate(&in, &p)
		return p
	}
	sb := in.Observed.Sandbox()
	if in.Busy.Sandbox {
		return p
	}
	if sb == nil || !sb.Ready || extraReady(in.Observed) {
		sandbox(&in, &p)
		return p
	}
	in.containers(&p, sb)
	p.Prune, p.PruneSandboxes = prune(&in), pruneSandboxes(&in)
	return p
}

// ending tells whether the API wants the pod gone or says that it has ended.
func ending(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || apiTerminal(pod)
}

func apiTerminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// deadline applies spec.activeDeadlineSeconds.
func deadline(in *Input) (*Failure, time.Time) {
	s := in.Pod.Spec.ActiveDeadlineSeconds
	if s == nil {
		return nil, time.Time{}
	}
	at := startTime(in).Add(time.Duration(*s) * time.Second)
	if in.Now.Before(at) {
		return nil, at
	}
	return &Failure{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}, time.Time{}
}

func startTime(in *Input) time.Time {
	if t := in.Pod.Status.StartTime; t != nil {
		return t.Time
	}
	return in.Memory.StartTime
}

// extraReady tells whether an older sandbox still lives beside the newest.
func extraReady(o *Observed) bool {
	for i := 1; i < len(o.Sandboxes); i++ {
		if o.Sandboxes[i].Ready {
			return true
		}
	}
	return false
}

// sandbox plans a new sandbox in place of none or a dead one. Containers of the old sandbox are stopped first.
func sandbox(in *Input, p *Plan) {
	for i := range in.Observed.Containers {
		c := &in.Observed.Containers[i]
		if c.State == Running || c.State == Unknown {
			stop(in, p, c, Stop{Reason: "SandboxChanged", Message: "Pod sandbox changed, it will be killed and re-created.", Grace: Grace(in.Pod)})
		}
	}
	if len(p.Stop) > 0 || len(in.Busy.Stopping) > 0 || in.Busy.Start {
		return
	}
	if in.Now.Before(in.Memory.SandboxRetryAt) {
		p.wake(in.Memory.SandboxRetryAt)
		return
	}
	p.Sandbox = true
	for i := range in.Observed.Sandboxes {
		s := &in.Observed.Sandboxes[i]
		p.Attempt = max(p.Attempt, s.Attempt+1)
		p.StopSandboxes = append(p.StopSandboxes, s.ID)
	}
}

// stop adds s for c unless c is being stopped already with no more time than that.
func stop(in *Input, p *Plan, c *Container, s Stop) {
	s.ID, s.Name = c.ID, c.Name
	until := in.Now.Add(s.Grace)
	if at, busy := in.Busy.Stopping[c.ID]; busy {
		if !until.Before(at.Add(-time.Second)) {
			return
		}
		s.Hurry = true
	}
	p.Stop = append(p.Stop, s)
}

// containers plans init containers, sidecars and containers in a ready sandbox.
func (in *Input) containers(p *Plan, sb *Sandbox) {
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

// initialised tells whether a regular container was started in this sandbox, so that init containers are over.
func (in *Input) initialised(sb *Sandbox) bool {
	for i := range in.Observed.Containers {
		c := &in.Observed.Containers[i]
		if c.SandboxID == sb.ID && c.State != Created && isRegular(in.Pod, c.Name) {
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

// initContainer plans one init container and tells whether the next one may come.
func (in *Input) initContainer(p *Plan, c *corev1.Container, sb *Sandbox, initialised bool) (next bool) {
	last := in.Observed.Newest(c.Name)
	if !IsSidecar(c) {
		if initialised {
			return true
		}
		if last != nil && last.SandboxID != sb.ID {
			last = nil // a new sandbox starts from the beginning
		}
		if last != nil && last.State == Exited && last.ExitCode == 0 {
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
		}
	case restarts(in.Pod, c, init, last.ExitCode):
		at := in.Memory.peek(c.Name).crashUntil(last)
		if in.Now.Before(at) {
			d := in.Memory.peek(c.Name).Crash.Delay
			p.wait(c.Name, Waiting{ReasonCrashLoop, fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				shortDuration(d), c.Name, in.Pod.Name, in.Pod.Namespace, in.Pod.UID)})
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
	s := Start{Name: c.Name, Attempt: RestartCount(in.Pod, in.Observed, c.Name), Last: last}
	if last != nil && last.State == Created {
		s.Replace, s.Last = last.ID, in.Observed.Previous(c.Name)
	}
	p.Start = append(p.Start, s)
}

// prune returns dead containers beyond the newest two runs of each name; one dead run is kept for its logs and last state.
func prune(in *Input) []string {
	var out []string
	for i := range in.Observed.Containers {
		c := &in.Observed.Containers[i]
		if c.State != Exited && c.State != Created {
			continue
		}
		newer := 0
		for j := 0; j < i; j++ {
			if in.Observed.Containers[j].Name == c.Name {
				newer++
			}
		}
		if newer > 1 || (newer == 1 && c.State == Created) {
			out = append(out, c.ID)
		}
	}
	return out
}

// pruneSandboxes returns older sandboxes in which no container is left.
func pruneSandboxes(in *Input) []string {
	var out []string
	for i := 1; i < len(in.Observed.Sandboxes); i++ {
		used := false
		for j := range in.Observed.Containers {
			used = used || in.Observed.Containers[j].SandboxID == in.Observed.Sandboxes[i].ID
		}
		if !used {
			out = append(out, in.Observed.Sandboxes[i].ID)
		}
	}
	return out
}

// shortDuration prints 10s, 2m40s, 5m0s as Kubernetes does.
func shortDuration(d time.Duration) string { return d.String() }
