package placement

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/scheduler/devices"
	"github.com/knarr-io/knarr/internal/scheduler/volumes"
)

// draWeight is that of kube-scheduler's DynamicResources score.
const draWeight = 2

// needs are what a pod wants of nodes that is no matter of classes, as two pods of one class have different claims.
type needs struct {
	devices *devices.Wants
	volumes *volumes.Wants
}

// found is what a pod gets of that on a node.
type found struct {
	devices devices.Found
	volumes volumes.Found
}

// refusal is why a node does not have it; the zero value is none.
type refusal struct {
	by   *Filter
	text string
}

// final reports whether it would not help to take pods off the node.
func (r refusal) final() bool { return r.by == &volumeBinding || r.by == &volumeZone }

// needsOf returns what a pod needs, nil if that is nothing. The filters of the pod alone have nothing against it.
func (st *State) needsOf(pod *corev1.Pod) *needs {
	d, _ := st.devices.Wants(pod)
	v, _ := st.volumes.Wants(pod)
	if d == nil && v == nil {
		return nil
	}
	return &needs{d, v}
}

// on returns what the pod gets on a node, or why it cannot have all.
func (w *needs) on(n *corev1.Node) (f found, why refusal) {
	if w.volumes != nil {
		var not volumes.Refusal
		if f.volumes, not = w.volumes.On(n); not.By != "" {
			i := slices.IndexFunc(filters(), func(f *Filter) bool { return f.Name == not.By })
			return f, refusal{filters()[i], not.Reason}
		}
	}
	if w.devices != nil {
		if f.devices, why.text = w.devices.On(n); why.text != "" {
			why.by = &dynamicResources
		}
	}
	return f, why
}

// ready reports whether the pod gets all on a node, and waits for nothing.
func (w *needs) ready(n *corev1.Node) bool {
	f, why := w.on(n)
	return why.by == nil && !f.volumes.Waits()
}

// filters returns the filters that speak of what the pod needs.
func (w *needs) filters() (s FilterSet) {
	if w.devices != nil {
		s |= setOf(&dynamicResources)
	}
	if w.volumes != nil {
		s |= setOf(&volumeBinding)
	}
	return s
}

// suitor is a node that suits a pod, but for what it needs.
type suitor struct {
	n     *node
	score int64
	found found
}

// bestWith returns the best node that has what a pod needs, or, by reason, how many nodes have not. It costs a look at
// every node. The class must be up to date.
func (c *class) bestWith(st *State, p pin, want *needs) (best *suitor, reasons map[refusal]int) {
	all := c.suitors(st, p)
	reasons = map[refusal]int{}
	var able []*suitor
	var top int64
	for i := range all {
		s := &all[i]
		var why refusal
		if s.found, why = want.on(s.n.obj); why.by != nil {
			reasons[why]++
			continue
		}
		if want.devices == nil || !want.devices.Ranked() {
			return s, nil
		}
		able, top = append(able, s), max(top, s.found.devices.Rank)
	}
	for _, s := range able {
		if top > 0 {
			s.score += draWeight * maxScore * s.found.devices.Rank / top
		}
		if best == nil || s.score > best.score {
			best = s
		}
	}
	return best, reasons
}

// suitors returns the nodes that suit a pod of the class, but for what it needs, the best first.
func (c *class) suitors(st *State, p pin) []suitor {
	var all []suitor
	if p != (pin{}) {
		for _, i := range st.pinned(p) {
			if n := st.nodes[i]; c.check(st, n, nil) == nil {
				all = append(all, suitor{n: n})
			}
		}
		return all
	}
	c.best() // rates the groups
	for _, n := range st.nodes {
		if n == nil {
			continue
		}
		if e := &c.entries[n.index]; e.group != nil && e.group.judgement.why == nil {
			all = append(all, suitor{n: n, score: e.group.score + topScore - int64(e.level)})
		}
	}
	slices.SortStableFunc(all, func(a, b suitor) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(c.entries[a.n.index].stamp, c.entries[b.n.index].stamp))
	})
	return all
}

// placeWith is the end of placeOne for a pod that needs something.
func (st *State) placeWith(d *Decision, sh *shape, c *class, nominated *nomination, want *needs) {
	if nominated != nil && c.check(st, nominated.node, nil) == nil {
		if found, why := want.on(nominated.node.obj); why.by == nil {
			st.take(d, sh, nominated.node, want, found)
			return
		}
	}
	p := pinOf(d.Pod)
	best, reasons := c.bestWith(st, p, want)
	if best != nil {
		d.Score = best.score
		st.take(d, sh, best.n, want, best.found)
		return
	}
	r := c.explainFor(st, p)
	for why, nodes := range reasons {
		r.add(&verdict{filter: why.by, reasons: []string{why.text}}, nodes)
		if p != (pin{}) { // explainPin takes a node that suits the class for one of the others
			if r.Reasons[reasonNodeAffinity] -= nodes; r.Reasons[reasonNodeAffinity] <= 0 {
				delete(r.Reasons, reasonNodeAffinity)
			}
		}
	}
	r.Filters |= want.filters() // what comes may make the difference where something else gives way, too
	st.preempt(d.Pod, c, p, want, r, nominated)
	d.Rejection = r
}

// take places a pod with what was found for it. Where a provisioner has to be asked for a volume first, it only keeps the pod's room.
func (st *State) take(d *Decision, sh *shape, n *node, want *needs, f found) {
	d.Node = n.obj.Name
	if d.Asks = f.volumes.Foreign(); len(d.Asks) > 0 {
		d.Rejection = &Rejection{Nodes: st.live, Filters: setOf(&volumeBinding), Nominated: d.Node}
		st.Nominate(d.Pod, d.Node)
		return
	}
	if want.devices != nil {
		d.Claims = st.devices.Assume(d.Pod, want.devices, f.devices)
	}
	if want.volumes != nil {
		d.Volumes = st.volumes.Assume(d.Pod, want.volumes, f.volumes)
	}
	st.assume(d.Pod, sh, n)
}
