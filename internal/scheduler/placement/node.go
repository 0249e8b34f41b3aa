package placement

import (
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api/volume"
)

// node is a machine and what is placed on it. What every class looks at comes first, in few lines of the processor's cache: building
// a class reads all nodes.
type node struct {
	// open reports whether the node is schedulable and has no taints: then only pods that are choosy need to look at obj.
	open          bool
	maxPods       int32
	pods          int32
	stamp         uint64     // when a pod was last placed here; of equal nodes the one that waited longest is taken
	assumedCPU    amount.Sum // used, with assumed amounts for containers that state none; see scoreFit
	assumedMemory amount.Sum
	used          totals
	alloc         resources
	nominated     []*nomination
	ports         map[hostPort]int

	obj      *corev1.Node
	infos    []*podInfo
	features featureSet
	index    int32
}

// podInfo is one placed pod.
type podInfo struct {
	pod      *corev1.Pod
	shape    *shape
	node     *node // nil while the node named by nodeName is unknown
	nodeName string
	slot     int  // in node.infos
	assumed  bool // placed by us, not yet seen as bound
	evicting bool // chosen as a victim of preemption
}

// nomination keeps room on a node for a pod that preempted others there.
type nomination struct {
	uid   types.UID
	key   types.NamespacedName
	shape *shape
	node  *node
}

// add accounts for pi on n.
func (n *node) add(pi *podInfo) {
	sh := pi.shape
	n.used.add(&sh.requests)
	n.assumedCPU.Add(sh.assumedCPU)
	n.assumedMemory.Add(sh.assumedMemory)
	n.pods++
	if len(sh.ports) > 0 && n.ports == nil {
		n.ports = map[hostPort]int{}
	}
	for _, p := range sh.ports {
		n.ports[p]++
	}
	pi.slot = len(n.infos)
	n.infos = append(n.infos, pi)
}

// sub is add undone.
func (n *node) sub(pi *podInfo) {
	sh := pi.shape
	n.used.sub(&sh.requests)
	n.assumedCPU.Sub(sh.assumedCPU)
	n.assumedMemory.Sub(sh.assumedMemory)
	n.pods--
	for _, p := range sh.ports {
		if n.ports[p]--; n.ports[p] == 0 {
			delete(n.ports, p)
		}
	}
	last := n.infos[len(n.infos)-1]
	n.infos[pi.slot] = last
	last.slot = pi.slot
	n.infos[len(n.infos)-1] = nil
	n.infos = n.infos[:len(n.infos)-1]
}

// held returns what nominated pods of at least this priority will need.
func (n *node) held(priority int32) (t totals, pods int) {
	for _, nom := range n.nominated {
		if nom.shape.priority >= priority {
			t.add(&nom.shape.requests)
			pods++
		}
	}
	return t, pods
}

// sameToPlacement reports whether nothing about the node changed that matters here: most updates of a node are heartbeats.
func sameToPlacement(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable &&
		maps.Equal(a.Labels, b.Labels) &&
		a.Annotations[volume.LocalCapacity] == b.Annotations[volume.LocalCapacity] &&
		slices.Equal(a.Status.DeclaredFeatures, b.Status.DeclaredFeatures) &&
		slices.EqualFunc(a.Spec.Taints, b.Spec.Taints, func(x, y corev1.Taint) bool {
			return x.Key == y.Key && x.Value == y.Value && x.Effect == y.Effect
		}) &&
		equality.Semantic.DeepEqual(a.Status.Allocatable, b.Status.Allocatable)
}

// SetNode adds or updates a node. It reports whether anything changed that may let a pod be placed.
func (st *State) SetNode(obj *corev1.Node) bool {
	i, known := st.byName[obj.Name]
	var n *node
	if known {
		n = st.nodes[i]
		if sameToPlacement(n.obj, obj) {
			n.obj = obj
			return false
		}
	} else {
		n = &node{index: st.slot()}
		st.nodes[n.index] = n
		st.byName[obj.Name] = n.index
		st.live++
	}
	n.obj = obj
	n.alloc = st.scalars.parse(obj.Status.Allocatable)
	n.maxPods = int32(min(amount.Units(*obj.Status.Allocatable.Pods()), math.MaxInt32))
	n.features = declaredBy(obj)
	n.open = !obj.Spec.Unschedulable && len(obj.Spec.Taints) == 0
	for _, t := range st.topologies {
		t.update(n.index, n)
	}
	st.touch(n.index, true)
	if !known {
		for pi := range st.homeless[obj.Name] {
			st.settle(pi, n)
		}
		delete(st.homeless, obj.Name)
	}
	return true
}

// RemoveNode removes a node. Its pods remain known, and count again when a node of that name comes back.
func (st *State) RemoveNode(name string) {
	i, known := st.byName[name]
	if !known {
		return
	}
	n := st.nodes[i]
	for len(n.infos) > 0 {
		pi := n.infos[len(n.infos)-1]
		st.unsettle(pi)
		st.wait(pi)
	}
	for len(n.nominated) > 0 {
		st.Unnominate(n.nominated[0].uid)
	}
	delete(st.byName, name)
	st.nodes[i] = nil
	st.free = append(st.free, i)
	st.live--
	for _, t := range st.topologies {
		t.update(i, nil)
	}
	st.touch(i, true)
}

// Nodes returns how many nodes there are.
func (st *State) Nodes() int { return st.live }

// slot returns the index for a new node: that of one that is gone, or one more.
func (st *State) slot() int32 {
	if k := len(st.free); k > 0 {
		i := st.free[k-1]
		st.free = st.free[:k-1]
		return i
	}
	st.nodes = append(st.nodes, nil)
	for _, c := range st.counters {
		c.node = append(c.node, 0)
	}
	return int32(len(st.nodes) - 1)
}
