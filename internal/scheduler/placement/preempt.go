package placement

import (
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	reasonUnhelpful = "Preemption is not helpful for scheduling"
	reasonNoVictims = "No preemption victims found for incoming pod"
	// minCandidates nodes, or a tenth of those in question, are searched for victims (kube-scheduler's
	// minCandidateNodesAbsolute and minCandidateNodesPercentage).
	minCandidates = 100
)

// victims are pods to be taken off one node.
type victims struct {
	node       *node
	pods       []*podInfo
	freed      resources
	violations int // of PodDisruptionBudgets
}

// of returns how many of the victims table t counts.
func (v *victims) of(t *table) int32 {
	if v == nil {
		return 0
	}
	// A pod counts towards its node's domain only if the node does.
	if t.domain[v.node.index] == noDomain {
		return 0
	}
	var count int32
	for _, pi := range v.pods {
		for _, c := range pi.shape.counters {
			if c == t.counter {
				count++
			}
		}
	}
	return count
}

func (v *victims) take(pi *podInfo) {
	v.pods = append(v.pods, pi)
	v.freed.add(&pi.shape.requests, 1)
}

func (v *victims) spare(pi *podInfo) {
	v.pods = slices.DeleteFunc(v.pods, func(other *podInfo) bool { return other == pi })
	v.freed.add(&pi.shape.requests, -1)
}

// unhelpful is the outcome of preemption where no node could be helped by it.
func (st *State) unhelpful() string {
	return fmt.Sprintf("0/%d nodes are available: %s", st.live, histogram(map[string]int{reasonUnhelpful: st.live}))
}

// preempt looks for pods of lower priority whose removal lets pod be placed, notes the best choice in r, and nominates
// the pod to that node. nominated is where it was nominated before, or nil.
func (st *State) preempt(pod *corev1.Pod, c *class, r *Rejection, nominated *nomination) {
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
	best, outcome := st.chooseVictims(c)
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

// waitsFor says that victims on the nominated node are on their way out, and that their going can help.
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

// Spared tells that a victim was not removed after all, so that it may be chosen again.
func (st *State) Spared(pod *corev1.Pod) {
	for _, pi := range st.pods {
		if pi.pod.UID == pod.UID {
			pi.evicting = false
			st.forgetRejections()
			return
		}
	}
}

// Outranks says that some placed pod has a lower priority.
func (st *State) Outranks(priority int32) bool {
	for other := range st.priorities {
		if other < priority {
			return true
		}
	}
	return false
}

// chooseVictims returns the least harmful set of victims, or nil and, by reason, the nodes on which there is none.
func (st *State) chooseVictims(c *class) (*victims, map[string]int) {
	outcome := map[string]int{}
	var candidates []*node
	anyLower := st.Outranks(c.example.priority)
	for _, n := range st.nodes {
		if n == nil {
			continue
		}
		v := c.why(st, n)
		switch {
		case v != nil && v.unresolvable:
			outcome[reasonUnhelpful]++
		case !anyLower:
			outcome[reasonNoVictims]++
		default:
			candidates = append(candidates, n)
		}
	}
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

// why is check for a node that is known not to be feasible, without looking twice.
func (c *class) why(st *State, n *node) *verdict {
	if e := &c.entries[n.index]; e.group == nil && e.why != noVerdict {
		return &c.verdicts.list[e.why]
	}
	return c.check(st, n, nil)
}

// victimsOn returns the fewest, least important pods whose removal from n makes room; or the reason why even the
// removal of all of lower priority does not; or neither if there are none.
func (st *State) victimsOn(n *node, c *class) (*victims, *verdict) {
	all := &victims{node: n}
	for _, pi := range n.infos {
		if pi.shape.priority < c.example.priority {
			all.take(pi)
		}
	}
	if len(all.pods) == 0 {
		return nil, nil
	}
	if v := c.check(st, n, all); v != nil {
		return nil, v
	}
	// Spare as many as possible: first those that a budget protects, the more important ones first.
	order := slices.Clone(all.pods)
	slices.SortFunc(order, moreImportant)
	violating, others := st.splitByBudgets(order)
	for _, pi := range violating {
		all.spare(pi)
		if c.check(st, n, all) != nil {
			all.take(pi)
			all.violations++
		}
	}
	for _, pi := range others {
		all.spare(pi)
		if c.check(st, n, all) != nil {
			all.take(pi)
		}
	}
	if len(all.pods) == 0 {
		return nil, nil
	}
	slices.SortFunc(all.pods, moreImportant)
	return all, nil
}

// moreImportant orders by priority, then by age: who runs longer is more important.
func moreImportant(a, b *podInfo) int {
	if a.shape.priority != b.shape.priority {
		if a.shape.priority > b.shape.priority {
			return -1
		}
		return 1
	}
	return started(a.pod).Compare(started(b.pod).Time)
}

// started is when the pod began to run; pods that did not yet come last.
func started(pod *corev1.Pod) metav1.Time {
	if pod.Status.StartTime != nil {
		return *pod.Status.StartTime
	}
	return metav1.Unix(math.MaxInt32, 0)
}

// better says that v does less harm than w, by the order of kube-scheduler: fewer violated budgets, a lower highest
// priority, a lower sum of priorities, fewer victims, later started.
func (v *victims) better(w *victims) bool {
	a, b := v.harm(), w.harm()
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func (v *victims) harm() [5]int64 {
	top := v.pods[0].shape.priority
	sum, earliest := int64(0), int64(math.MaxInt64)
	for _, pi := range v.pods {
		sum += int64(pi.shape.priority) + math.MaxInt32 + 1
		if pi.shape.priority == top {
			earliest = min(earliest, started(pi.pod).Unix())
		}
	}
	return [5]int64{int64(v.violations), int64(top), sum, int64(len(v.pods)), -earliest}
}

// splitByBudgets separates the pods whose eviction a PodDisruptionBudget does not allow.
func (st *State) splitByBudgets(pods []*podInfo) (violating, others []*podInfo) {
	type budget struct {
		pdb      *policyv1.PodDisruptionBudget
		selector labels.Selector
		left     int32
	}
	var budgets []*budget
	for _, pdb := range st.budgets {
		selector := selectorOf(pdb.Spec.Selector)
		budgets = append(budgets, &budget{pdb, selector, pdb.Status.DisruptionsAllowed})
	}
	for _, pi := range pods {
		violates := false
		for _, b := range budgets {
			if b.pdb.Namespace != pi.shape.namespace || len(pi.shape.labels) == 0 || b.selector.Empty() || !b.selector.Matches(pi.shape.labels) {
				continue
			}
			if _, gone := b.pdb.Status.DisruptedPods[pi.pod.Name]; gone {
				continue
			}
			b.left--
			violates = violates || b.left < 0
		}
		if violates {
			violating = append(violating, pi)
		} else {
			others = append(others, pi)
		}
	}
	return violating, others
}
