package placement

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// victims are pods to be taken off one node.
type victims struct {
	node       *node
	pods       []*podInfo
	freed      totals
	violations int // of PodDisruptionBudgets
}

// of returns how many of the victims table t counts.
func (v *victims) of(t *table) int32 {
	if v == nil {
		return 0
	}
	// A pod counts towards its node's domain only if the node does.
	if t.added[v.node.index].domain == noDomain {
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
	v.freed.add(&pi.shape.requests)
}

func (v *victims) spare(pi *podInfo) {
	v.pods = slices.DeleteFunc(v.pods, func(other *podInfo) bool { return other == pi })
	v.freed.sub(&pi.shape.requests)
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

// better reports whether v does less harm than w, by the order of kube-scheduler: fewer violated budgets, a lower highest
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
