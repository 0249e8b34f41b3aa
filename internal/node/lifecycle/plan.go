package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/amount"
)

// Start asks for a container to be created and started.
type Start struct {
	Name    string
	Attempt int32
	// Round is the pod's round in which the run takes part.
	Round int32
	// Replace is a container that was created and never ran (the agent died in between), to be removed first.
	Replace string
	// Last is the run before, for the crash back-off.
	Last *Container
}

// Stop asks for a running container to be ended.
type Stop struct {
	ID, Name        string
	Reason, Message string
	// Grace is what the container is given to end; without any it is killed, and its preStop hook does not run.
	Grace time.Duration
	// Probe is true when a failed probe asked for it: its own terminationGracePeriodSeconds counts (KEP-2238).
	Probe bool
	// Hurry is true when the container is being stopped already and gets less time now.
	Hurry bool
	// Resize is true when the container is to start again with other resources.
	Resize bool
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
	// Resize asks to give running containers, and the pod's control group, the resources that were granted (KEP-1287).
	Resize bool
	Stop   []Stop
	// Teardown asks to stop all sandboxes and give back volumes and cgroups; Remove to remove what is left in the
	// runtime; Finish to report the pod's end to the API (and delete it there, if it is to be deleted).
	Teardown, Remove, Finish bool
	// Prune names dead containers that nobody needs, PruneSandboxes dead sandboxes that are empty.
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
	in.resize(&p)
	p.Prune, p.PruneSandboxes = prune(&in), pruneSandboxes(&in)
	return p
}

// ending reports whether the API wants the pod gone or says that it has ended.
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
	at := startTime(in).Add(amount.Seconds(*s))
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

// extraReady reports whether an older sandbox still lives beside the newest.
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
