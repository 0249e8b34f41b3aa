package placement

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const reasonNoNodes = "no nodes available to schedule pods"

// Rejection is why a pod was not placed.
type Rejection struct {
	Nodes   int            // in the cluster
	Filters FilterSet      // all that turned a node, or the pod, down
	Reasons map[string]int // nodes by reason
	// PodReason, if set, keeps the pod off every node.
	PodReason string
	// Preemption is what became of the attempt to make room.
	Preemption string
	// Nominated is the node that will have room once Victims are gone.
	Nominated string
	Victims   []*corev1.Pod
	// Waiting reports whether victims chosen earlier are still on their way out; the nomination stays.
	Waiting bool
}

// Message is the text of the PodScheduled condition and the FailedScheduling event, as kube-scheduler writes it.
func (r *Rejection) Message() string {
	if r.PodReason == reasonNoNodes {
		return reasonNoNodes
	}
	msg := fmt.Sprintf("0/%d nodes are available: ", r.Nodes)
	if r.PodReason != "" {
		msg += r.PodReason + "."
	} else {
		msg += histogram(r.Reasons)
	}
	if r.Preemption != "" {
		msg += " preemption: " + r.Preemption
	}
	return msg
}

// histogram writes "2 Insufficient cpu, 3 node(s) were unschedulable."
func histogram(reasons map[string]int) string {
	parts := make([]string, 0, len(reasons))
	for reason, nodes := range reasons {
		parts = append(parts, fmt.Sprintf("%d %s", nodes, reason))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ") + "."
}

// explain counts why no node was taken. The class must be up to date, best must have found nothing.
func (c *class) explain(st *State) *Rejection {
	r := &Rejection{Nodes: st.live, Reasons: map[string]int{}}
	for i := range c.verdicts.list {
		r.add(&c.verdicts.list[i], c.verdicts.list[i].nodes)
	}
	for _, g := range c.groups {
		if g.judgement.why != nil {
			v := g.judgement.verdict()
			r.add(&v, g.size)
		}
	}
	return r
}

func (r *Rejection) add(v *verdict, nodes int) {
	if nodes == 0 {
		return
	}
	r.Filters |= setOf(v.filter)
	for _, reason := range v.reasons {
		r.Reasons[reason] += nodes
	}
}

// check returns why node n does not suit pods of the class, taking victims out of it (or nil); nil if it does. The class must
// be up to date.
func (c *class) check(st *State, n *node, without *victims) *verdict {
	if why := c.judgeRoom(st, n, c.entries[n.index].static, without); why != noVerdict {
		v := c.verdicts.list[why]
		return &v
	}
	for i, t := range c.tables {
		c.at[i] = t.topo.of[n.index]
	}
	if j := c.judge(view{at: c.at, domains: true, without: without}); j.why != nil {
		v := j.verdict()
		return &v
	}
	return nil
}

// Reason is one reason why nodes do not suit a pod. What can be done about it is Filter.Next.
type Reason struct {
	Filter *Filter
	Text   string
	Nodes  []string // sorted; all nodes for a reason that lies with the pod
}

// Explain says for pod, which need not be pending, which nodes suit it and why the others do not.
func (st *State) Explain(pod *corev1.Pod) (suitable []string, reasons []Reason) {
	byText := map[string]*Reason{}
	note := func(f *Filter, text, node string) {
		r := byText[text]
		if r == nil {
			r = &Reason{Filter: f, Text: text}
			byText[text] = r
		}
		r.Nodes = append(r.Nodes, node)
	}
	by, problem := st.podProblem(pod)
	want := st.needsOf(pod)
	c, p := st.classOf(st.shapeOf(pod)), pinOf(pod)
	named := st.pinned(p)
	for _, n := range st.nodes {
		if n == nil {
			continue
		}
		if problem != "" {
			note(by, problem, n.obj.Name)
			continue
		}
		v := c.check(st, n, nil)
		if p != (pin{}) && !slices.Contains(named, n.index) && (v == nil || v.filter != &nodeUnschedulable && v.filter != &taintToleration) {
			v = &verdict{filter: &nodeAffinity, reasons: []string{reasonNodeAffinity}}
		}
		if v == nil && want != nil {
			if _, why := want.on(n.obj); why.by != nil {
				v = &verdict{filter: why.by, reasons: []string{why.text}}
			}
		}
		if v == nil {
			suitable = append(suitable, n.obj.Name)
			continue
		}
		for _, text := range v.reasons {
			note(v.filter, text, n.obj.Name)
		}
	}
	slices.Sort(suitable)
	for _, r := range byText {
		slices.Sort(r.Nodes)
		reasons = append(reasons, *r)
	}
	slices.SortFunc(reasons, func(a, b Reason) int {
		if d := len(b.Nodes) - len(a.Nodes); d != 0 {
			return d
		}
		return strings.Compare(a.Text, b.Text)
	})
	return suitable, reasons
}
