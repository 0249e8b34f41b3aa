package placement

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

const (
	reasonUnhelpful = "Preemption is not helpful for scheduling"
	reasonNoVictims = "No preemption victims found for incoming pod"
	// minCandidates nodes, or a tenth of those in question, are searched for victims (kube-scheduler's
	// minCandidateNodesAbsolute and minCandidateNodesPercentage).
	minCandidates = 100
)

// unhelpful is the outcome of preemption where no node could be helped by it.
func (st *State) unhelpful() string {
	return fmt.Sprintf("0/%d nodes are available: %s", st.live, histogram(map[string]int{reasonUnhelpful: st.live}))
}

// preempt looks for pods of lower priority whose removal lets pod be placed, notes the best choice in r, and nominates
// the pod to that node. nominated is where it was nominated before, or nil; want is what it needs, or nil.
func (st *State) preempt(pod *corev1.Pod, c *class, p pin, want *needs, r *Rejection, nominated *nomination) {
	if st.options.NoPreemption {
		return
	}
	if neverPreempts(pod) {
		r.Preemption = "not eligible due to preemptionPolicy=Never."
		return
	}
	if nominated != nil && c.waitsFor(st, nominated) {
		st.Nominate(pod, nominated.node.obj.Name)
		r.Waiting = true
		r.Preemption = "not eligible due to a terminating pod on the nominated node."
		return
	}
	best, outcome := st.chooseVictims(c, p, want)
	if best == nil {
		r.Preemption = fmt.Sprintf("0/%d nodes are available: %s", st.live, histogram(outcome))
		return
	}
	r.Nominated = best.node.obj.Name
	for _, pi := range best.pods {
		pi.evicting = true
		r.Victims = append(r.Victims, pi.pod)
	}
	r.Preemption = fmt.Sprintf("found a potential placement for pod on node %s, preempting %d victims", r.Nominated, len(r.Victims))
	st.outrank(best.node, c.example.priority)
	st.Nominate(pod, r.Nominated)
}

func neverPreempts(pod *corev1.Pod) bool {
	return pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == corev1.PreemptNever
}

// waitsFor reports whether victims on the nominated node are on their way out, and that their going can help.
func (c *class) waitsFor(st *State, nom *nomination) bool {
	if v := c.check(st, nom.node, nil); v != nil && v.unresolvable {
		return false
	}
	for _, pi := range nom.node.infos {
		if pi.shape.priority < c.example.priority && (pi.evicting || terminatingByPreemption(pi.pod)) {
			return true
		}
	}
	return false
}

func terminatingByPreemption(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp == nil {
		return false
	}
	for i := range pod.Status.Conditions {
		if cond := &pod.Status.Conditions[i]; cond.Type == corev1.DisruptionTarget {
			return cond.Status == corev1.ConditionTrue && cond.Reason == corev1.PodReasonPreemptionByScheduler
		}
	}
	return false
}

// outrank takes their nominations to n from pods of lower priority: they would not fit any more.
func (st *State) outrank(n *node, priority int32) {
	for _, nom := range slices.Clone(n.nominated) {
		if nom.shape.priority < priority {
			st.Unnominate(nom.uid)
		}
	}
}

// Spared notes that a victim was not removed after all, so that it may be chosen again.
func (st *State) Spared(pod *corev1.Pod) {
	for _, pi := range st.pods {
		if pi.pod.UID == pod.UID {
			pi.evicting = false
			st.forgetRejections()
			return
		}
	}
}

// Outranks reports whether some placed pod has a lower priority.
func (st *State) Outranks(priority int32) bool {
	for other := range st.priorities {
		if other < priority {
			return true
		}
	}
	return false
}

// chooseVictims returns the least harmful set of victims, or nil and, by reason, the nodes on which there is none.
func (st *State) chooseVictims(c *class, p pin, want *needs) (*victims, map[string]int) {
	candidates, outcome := st.candidates(c, p, want)
	var best *victims
	wanted, found := max(minCandidates, len(candidates)/10), 0
	for k := range candidates {
		n := candidates[(st.offset+k)%len(candidates)]
		v, verdict := st.victimsOn(n, c)
		switch {
		case v == nil && verdict == nil:
			outcome[reasonNoVictims]++
		case v == nil:
			for _, reason := range verdict.reasons {
				outcome[reason]++
			}
		default:
			if best == nil || v.better(best) {
				best = v
			}
			if found++; found >= wanted && best.violations == 0 {
				st.offset += k + 1
				return best, nil
			}
		}
	}
	return best, outcome
}

// candidates returns the nodes that are searched for victims, and, by reason, how many are not.
func (st *State) candidates(c *class, p pin, want *needs) (candidates []*node, outcome map[string]int) {
	outcome = map[string]int{}
	anyLower := st.Outranks(c.example.priority)
	consider := func(n *node) {
		v := c.why(st, n)
		var lacks refusal
		if want != nil {
			_, lacks = want.on(n.obj)
		}
		switch {
		case v != nil && v.unresolvable || lacks.final():
			outcome[reasonUnhelpful]++
		case !anyLower:
			outcome[reasonNoVictims]++
		case lacks.by != nil: // devices and volumes come free when their claims do, long after a victim has gone
			outcome[reasonUnhelpful]++
		default:
			candidates = append(candidates, n)
		}
	}
	if p == (pin{}) {
		for _, n := range st.nodes {
			if n != nil {
				consider(n)
			}
		}
		return candidates, outcome
	}
	nodes := st.pinned(p)
	for _, i := range nodes {
		consider(st.nodes[i])
	}
	if others := st.live - len(nodes); others > 0 {
		outcome[reasonUnhelpful] += others
	}
	return candidates, outcome
}

// why is check for a node that is known not to be feasible, without looking twice.
func (c *class) why(st *State, n *node) *verdict {
	if e := &c.entries[n.index]; e.group == nil && e.why != noVerdict {
		return &c.verdicts.list[e.why]
	}
	return c.check(st, n, nil)
}
