package placement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pin is the one node that a pod names, and with it the only one that is looked at. A DaemonSet's pods each name theirs
// (matchFields metadata.name); people use the selector kubernetes.io/hostname. The pin is no part of shape and class, so that
// a thousand pods pinned to a thousand nodes are of one class.
type pin struct {
	name string // of the node
	host string // the value of its label kubernetes.io/hostname
}

// pinOf returns the pin of a pod; the zero value if there is none. A pod with hard topology spread constraints has none: which
// nodes count for these depends on what the pod selects.
func pinOf(pod *corev1.Pod) pin {
	spec := &pod.Spec
	p := pin{name: pinnedName(spec.Affinity), host: spec.NodeSelector[corev1.LabelHostname]}
	if p == (pin{}) {
		return p
	}
	for i := range spec.TopologySpreadConstraints {
		if spec.TopologySpreadConstraints[i].WhenUnsatisfiable == corev1.DoNotSchedule {
			return pin{}
		}
	}
	return p
}

// pinnedName returns the node that every term of the required node affinity names, or "".
func pinnedName(a *corev1.Affinity) (name string) {
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms {
		fields := terms[i].MatchFields
		if len(fields) != 1 || fields[0].Key != metav1.ObjectNameField || fields[0].Operator != corev1.NodeSelectorOpIn || len(fields[0].Values) != 1 {
			return ""
		}
		if i > 0 && fields[0].Values[0] != name {
			return ""
		}
		name = fields[0].Values[0]
	}
	return name
}

// withoutPin returns what spec asks of nodes besides the pin.
func (p pin) without(spec *corev1.PodSpec) (selector map[string]string, affinity *corev1.NodeAffinity) {
	selector = spec.NodeSelector
	if spec.Affinity != nil {
		affinity = spec.Affinity.NodeAffinity
	}
	if p.host != "" {
		selector = make(map[string]string, len(spec.NodeSelector))
		for k, v := range spec.NodeSelector {
			if k != corev1.LabelHostname {
				selector[k] = v
			}
		}
	}
	if p.name != "" {
		rest := *affinity
		rest.RequiredDuringSchedulingIgnoredDuringExecution = restOf(affinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms)
		affinity = &rest
	}
	return selector, affinity
}

// restOf returns the terms without their fields; nil if one of them has nothing else, so that any node will do.
func restOf(terms []corev1.NodeSelectorTerm) *corev1.NodeSelector {
	rest := &corev1.NodeSelector{}
	for i := range terms {
		if len(terms[i].MatchExpressions) == 0 {
			return nil
		}
		rest.NodeSelectorTerms = append(rest.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchExpressions: terms[i].MatchExpressions})
	}
	return rest
}

// pinned returns the nodes that p means: one, or none, unless somebody gave several nodes one hostname.
func (st *State) pinned(p pin) []int32 {
	var nodes []int32
	if p.host != "" {
		t := st.topology(corev1.LabelHostname)
		if d, ok := t.ids[p.host]; ok {
			nodes = t.members[d]
		}
		if p.name == "" {
			return nodes
		}
	}
	i, ok := st.byName[p.name]
	if !ok || p.host != "" && !slices.Contains(nodes, i) {
		return nil
	}
	return []int32{i}
}

// bestFor is class.best for a pod with this pin, which has no use for scores.
func (c *class) bestFor(st *State, p pin) (index int32, score int64) {
	if p == (pin{}) {
		return c.best()
	}
	index = -1
	for _, i := range st.pinned(p) {
		if n := st.nodes[i]; c.check(st, n, nil) == nil && (index < 0 || n.stamp < st.nodes[index].stamp) {
			index = i
		}
	}
	return index, 0
}

// explainPin is explain for a pod with a pin: all other nodes do not match it, unless a filter that is asked before that one
// turned them down.
func (c *class) explainPin(st *State, p pin) *Rejection {
	r := &Rejection{Nodes: st.live, Reasons: map[string]int{}}
	others := st.live
	counts := make([]int, len(c.verdicts.list))
	for i := range c.verdicts.list {
		if f := c.verdicts.list[i].filter; f == &nodeUnschedulable || f == &taintToleration {
			counts[i] = c.verdicts.list[i].nodes
		}
	}
	for _, i := range st.pinned(p) {
		if v := c.check(st, st.nodes[i], nil); v != nil {
			if why := c.entries[i].static.why; why != noVerdict && counts[why] > 0 {
				counts[why]--
			}
			others--
			r.add(v, 1)
		}
	}
	for i, nodes := range counts {
		r.add(&c.verdicts.list[i], nodes)
		others -= nodes
	}
	r.add(&verdict{filter: &nodeAffinity, reasons: []string{reasonNodeAffinity}}, others)
	return r
}
