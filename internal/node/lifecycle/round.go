package lifecycle

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// ReasonRestartingAll is why a container waits that runs again with all others of its pod (KEP-5532).
const ReasonRestartingAll = "RestartingAllContainers"

// A pod's containers run in rounds. The first is round 0; a run that exits with a code for which its container has a rule with the action
// RestartAllContainers (KEP-5532) ends its round: every other run of it is killed, as it is no longer worth anything, and the next round
// begins with the first init container, in the same sandbox and with the same volumes. Each run carries its round as an annotation in the
// runtime, so that the round is found again by looking, whatever died in between: the restart is neither lost nor done twice, and a
// container that was just being started when another one ended the round is recognized as one of the old round.
//
// round returns the round that is to run. A pod that ends begins none.
func (in *Input) round() int32 {
	if ending(in.Pod) || !in.Memory.Terminating.IsZero() || in.Memory.Gone || !mayRestartAll(in.Pod) {
		return 0
	}
	var round int32
	for i := range in.Observed.Containers {
		run := &in.Observed.Containers[i]
		round = max(round, run.Round)
		if c := member(in.Pod, run.Name); c != nil && run.State == Exited &&
			ruleFor(c, run.ExitCode) == corev1.ContainerRestartRuleActionRestartAllContainers {
			round = max(round, run.Round+1)
		}
	}
	return round
}

// outdated reports whether the run belongs to a round that is over.
func (in *Input) outdated(run *Container) bool {
	return run != nil && run.Round < in.round()
}

// clearRound plans the end of what still runs of rounds that are over, and reports whether the round that is to run may begin.
func (in *Input) clearRound(p *Plan) bool {
	round := in.round()
	clear := true
	for i := range in.Observed.Containers {
		run := &in.Observed.Containers[i]
		if run.Round >= round || member(in.Pod, run.Name) == nil {
			continue
		}
		switch {
		case run.State == Running || run.State == Unknown:
			clear = false
			stop(in, p, run, Stop{Reason: "RestartAllContainers", Message: fmt.Sprintf("Container %s is killed, as all containers of the pod restart", run.Name)})
		case run.State == Exited && run == in.Observed.Newest(run.Name):
			p.wait(run.Name, Waiting{ReasonRestartingAll, "All containers of the pod restart in place"})
		}
	}
	return clear
}

// beginsRound reports whether the round that is to run has not begun: none of its containers was made.
func (in *Input) beginsRound() bool {
	round := in.round()
	return round > 0 && !slices.ContainsFunc(in.Observed.Containers, func(c Container) bool { return c.Round == round })
}

// mayRestartAll reports whether a container of the pod has a rule by which all of them restart.
func mayRestartAll(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for j := range list[i].RestartPolicyRules {
				if list[i].RestartPolicyRules[j].Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// member returns the container or init container of that name, or nil: ephemeral containers run on through all rounds.
func member(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// ruleFor returns the action of the first rule that the exit code meets, or "" (KEP-5307).
func ruleFor(c *corev1.Container, code int32) corev1.ContainerRestartRuleAction {
	for i := range c.RestartPolicyRules {
		r := &c.RestartPolicyRules[i]
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, code)
		if in == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return r.Action
		}
	}
	return ""
}

// restartingAll is the condition of a pod whose containers may restart together.
func (in *Input) restartingAll(s *corev1.PodStatus) []corev1.PodCondition {
	if !mayRestartAll(in.Pod) {
		return nil
	}
	c := corev1.PodCondition{Type: corev1.AllContainersRestarting, Status: corev1.ConditionFalse}
	switch {
	case s.Phase == corev1.PodSucceeded:
		c.Reason = "PodCompleted"
	case s.Phase == corev1.PodFailed:
		c.Reason = "PodFailed"
	case in.beginsRound():
		c.Status, c.Reason = corev1.ConditionTrue, "RestartAllContainersStarted"
		c.Message = "a container exited with a code for which all containers of the pod restart"
	}
	return []corev1.PodCondition{c}
}

// parseRound reads a run's round from its annotation.
func parseRound(s string) int32 {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}
