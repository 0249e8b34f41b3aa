package placement

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/scheduler/devices"
)

// dynamicResources gives a pod the devices that its ResourceClaims ask for (KEP-4381). Of the pod alone it asks whether its claims are there and
// can be used; which devices a node has for them is found out for nodes that suit the pod otherwise, in bestWithDevices: what is left of
// them is no matter of classes, as two pods of one class have different claims.
var dynamicResources = Filter{
	Name:  "DynamicResources",
	Helps: DevicesChanged | NodeChanged,
	Next:  "look at the pod's ResourceClaims, and at the ResourceSlices and DeviceClasses that drivers and administrators offer (kubectl describe resourceclaim)",
	pod:   claimProblem,
}

// draWeight is that of kube-scheduler's DynamicResources score.
const draWeight = 2

// Devices is what is known of devices and claims.
func (st *State) Devices() *devices.State { return st.devices }

// claimProblem returns why pod cannot be placed anywhere because of the devices that it wants, or "".
func claimProblem(st *State, pod *corev1.Pod) string {
	_, reason := st.devices.Wants(pod)
	return reason
}

// suitor is a node that suits a pod, devices aside.
type suitor struct {
	n     *node
	score int64
	found devices.Found
}

// bestWithDevices returns the best node that has the devices that a pod wants, or, by reason, how many nodes have not. It costs a look at
// every node. The class must be up to date.
func (c *class) bestWithDevices(st *State, p pin, want *devices.Wants) (best *suitor, reasons map[string]int) {
	all := c.suitors(st, p)
	reasons = map[string]int{}
	var able []*suitor
	var top int64
	for i := range all {
		s := &all[i]
		var why string
		if s.found, why = want.On(s.n.obj); why != "" {
			reasons[why]++
			continue
		}
		if !want.Ranked() {
			return s, nil
		}
		able, top = append(able, s), max(top, s.found.Rank)
	}
	for _, s := range able {
		if top > 0 {
			s.score += draWeight * maxScore * s.found.Rank / top
		}
		if best == nil || s.score > best.score {
			best = s
		}
	}
	return best, reasons
}

// suitors returns the nodes that suit a pod of the class, devices aside, the best first.
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

// placeWithDevices is the end of placeOne for a pod that wants devices.
func (st *State) placeWithDevices(d *Decision, sh *shape, c *class, nominated *nomination, want *devices.Wants) {
	if nominated != nil && c.check(st, nominated.node, nil) == nil {
		if found, why := want.On(nominated.node.obj); why == "" {
			d.Node, d.Claims = nominated.node.obj.Name, st.devices.Assume(d.Pod, want, found)
			st.assume(d.Pod, sh, nominated.node)
			return
		}
	}
	p := pinOf(d.Pod)
	best, reasons := c.bestWithDevices(st, p, want)
	if best != nil {
		d.Node, d.Score, d.Claims = best.n.obj.Name, best.score, st.devices.Assume(d.Pod, want, best.found)
		st.assume(d.Pod, sh, best.n)
		return
	}
	r := c.explainFor(st, p)
	for reason, nodes := range reasons {
		r.add(&verdict{filter: &dynamicResources, reasons: []string{reason}}, nodes)
		if p != (pin{}) { // explainPin takes a node that suits the class for one of the others
			if r.Reasons[reasonNodeAffinity] -= nodes; r.Reasons[reasonNodeAffinity] <= 0 {
				delete(r.Reasons, reasonNodeAffinity)
			}
		}
	}
	r.Filters |= setOf(&dynamicResources) // devices that come may make the difference where something else gives way, too
	st.preempt(d.Pod, c, p, want, r, nominated)
	d.Rejection = r
}
