package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/scheduler/devices"
)

// Decision is what became of one pod.
type Decision struct {
	Pod *corev1.Pod
	// Node is where the pod goes; "" if nowhere.
	Node string
	// Score is the node's, for explanations.
	Score int64
	// Claims is what binding the pod does to its ResourceClaims. Their devices are taken until State.Devices is told that the pod was bound
	// or was not.
	Claims []devices.Claim
	// Volumes is what it does to its PersistentVolumeClaims; State.Volumes is told likewise.
	Volumes []volume.Binding
	// Asks are claims of which a provisioner has to be asked for a volume for Node: the pod is not placed yet, and waits as Rejection says.
	Asks []types.NamespacedName
	// Rejection says why the pod was not placed. It may be shared with other pods.
	Rejection *Rejection
}

// Place decides for pods, in this order, each knowing of those before it. Placed pods are accounted for until RemovePod
// takes them back or SetPod has them as bound. Pods that preempt others are nominated (see Nominate), and the
// victims are noted as going away.
func (st *State) Place(pods []*corev1.Pod) []Decision {
	out := make([]Decision, len(pods))
	for i, pod := range pods {
		out[i] = st.placeOne(pod)
	}
	return out
}

func (st *State) placeOne(pod *corev1.Pod) Decision {
	d := Decision{Pod: pod}
	if st.live == 0 {
		d.Rejection = &Rejection{Filters: setOf(&nodeResourcesFit), PodReason: reasonNoNodes}
		return d
	}
	if by, problem := st.podProblem(pod); by != nil {
		d.Rejection = &Rejection{Nodes: st.live, Filters: setOf(by), PodReason: problem, Preemption: st.unhelpful()}
		return d
	}
	st.devices.NotBound(pod.UID) // of an attempt whose end is not known
	st.volumes.NotBound(pod.UID)
	want := st.needsOf(pod)
	sh := st.shapeOf(pod)
	st.hold(sh)
	defer st.letGo(sh)

	nominated := st.nominated[pod.UID]
	if nominated != nil {
		st.Unnominate(pod.UID) // its own room is not taken
	}
	c := st.classOf(sh)
	if want != nil {
		st.placeWith(&d, sh, c, nominated, want)
		return d
	}
	if nominated != nil && c.check(st, nominated.node, nil) == nil {
		d.Node = nominated.node.obj.Name
		st.assume(pod, sh, nominated.node)
		return d
	}
	p := pinOf(pod)
	if i, score := c.bestFor(st, p); i >= 0 {
		d.Node, d.Score = st.nodes[i].obj.Name, score
		st.assume(pod, sh, st.nodes[i])
		return d
	}
	d.Rejection = st.reject(pod, c, p, nominated)
	return d
}

// Outdated reports whether pod, which was rejected for what it is by itself, has another reason for that now, or none.
func (st *State) Outdated(pod *corev1.Pod, why *Rejection) bool {
	if why.PodReason == "" || why.PodReason == reasonNoNodes {
		return false
	}
	_, reason := st.podProblem(pod)
	return reason != why.PodReason
}

// podProblem asks the filters that look at the pod alone.
func (st *State) podProblem(pod *corev1.Pod) (by *Filter, reason string) {
	for _, f := range podFilters {
		if reason := f.pod(st, pod); reason != "" {
			return f, reason
		}
	}
	return nil, ""
}

// assume accounts for a pod just placed.
func (st *State) assume(pod *corev1.Pod, sh *shape, n *node) {
	st.seq++
	n.stamp = st.seq
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	st.RemovePod(key) // one of that name that was deleted, should its event come later than this pod's
	st.place(pod, key, sh, n.obj.Name).assumed = true
}

// reject explains, and looks for pods to preempt. Without those the result holds for all pods of the class until
// something changes.
func (st *State) reject(pod *corev1.Pod, c *class, p pin, nominated *nomination) *Rejection {
	shareable := nominated == nil && !neverPreempts(pod) && p == pin{}
	if shareable && c.rejection != nil && c.rejectedAt == st.logEnd() {
		return c.rejection
	}
	r := c.explainFor(st, p)
	st.preempt(pod, c, p, nil, r, nominated)
	if shareable && len(r.Victims) == 0 {
		c.rejection, c.rejectedAt = r, st.logEnd()
	}
	return r
}

// explainFor is explain for a pod with this pin.
func (c *class) explainFor(st *State, p pin) *Rejection {
	if p == (pin{}) {
		return c.explain(st)
	}
	return c.explainPin(st, p)
}

// Feasible reports whether Place would find a node for pod now, without preempting others.
func (st *State) Feasible(pod *corev1.Pod) bool {
	if st.live == 0 {
		return false
	}
	if by, _ := st.podProblem(pod); by != nil {
		return false
	}
	c := st.classOf(st.shapeOf(pod))
	if want := st.needsOf(pod); want != nil {
		if best, _ := c.bestWith(st, pinOf(pod), want); best != nil {
			return !best.found.volumes.Waits()
		}
		return st.feasibleAsNominated(pod, c) && want.ready(st.nominated[pod.UID].node.obj)
	}
	if p := pinOf(pod); p != (pin{}) {
		if i, _ := c.bestFor(st, p); i >= 0 {
			return true
		}
		return st.feasibleAsNominated(pod, c)
	}
	for _, g := range c.groups {
		if c.judge(view{at: g.at}).why == nil {
			return true
		}
	}
	return st.feasibleAsNominated(pod, c)
}

// feasibleAsNominated reports whether pod would fit into the room that is kept for it.
func (st *State) feasibleAsNominated(pod *corev1.Pod, c *class) bool {
	if nom := st.nominated[pod.UID]; nom != nil {
		n := nom.node
		list := n.nominated
		n.nominated = nil // its own room is not taken; of others' there is seldom any
		defer func() { n.nominated = list }()
		return c.check(st, n, nil) == nil
	}
	return false
}
