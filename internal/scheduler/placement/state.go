package placement

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/scheduler/devices"
	"github.com/knarr-io/knarr/internal/scheduler/volumes"
)

// State is what the scheduler knows of the cluster. It is not safe for concurrent use.
type State struct {
	options Options
	scalars scalars

	nodes  []*node // by index; nil where a node is gone
	free   []int32 // indexes of nil nodes
	byName map[string]int32
	live   int

	pods       map[types.NamespacedName]*podInfo
	homeless   map[string]map[*podInfo]struct{} // pods on nodes not known (yet), by node name
	priorities map[int32]int                    // placed pods by priority
	nominated  map[types.UID]*nomination

	shapes     map[string]*shape
	idleShapes int // shapes without pods
	counters   map[string]*counter
	carried    map[string]*carriedTerm
	topologies map[string]*topology
	classes    map[string]*class
	namespaces map[string]labels.Set
	budgets    map[types.NamespacedName]*policyv1.PodDisruptionBudget
	devices    *devices.State
	volumes    *volumes.State

	log      []uint32 // changed nodes, index<<1, | 1 if the node itself changed and not only what is placed on it
	logBase  uint64   // position of log[0]
	rulesGen uint64   // changes with carried and namespaces: what acts on a shape must be found out again
	seq      uint64   // counts placements
	used     uint64   // counts uses of classes
	offset   int      // where the next search for victims begins
	key      keyWriter

	manyDomains int // see the constant; tests change it
	logSlack    int // entries of the log beyond four per node; tests change it
}

// Options choose between policies. The zero value is Kubernetes' default.
type Options struct {
	Packing Packing
	// NoPreemption leaves lower-priority pods alone.
	NoPreemption bool
}

// New returns an empty State.
func New(options Options) *State {
	return &State{
		options: options, manyDomains: manyDomains, logSlack: 4096,
		scalars:    scalars{index: map[corev1.ResourceName]int{}},
		byName:     map[string]int32{},
		pods:       map[types.NamespacedName]*podInfo{},
		homeless:   map[string]map[*podInfo]struct{}{},
		priorities: map[int32]int{},
		nominated:  map[types.UID]*nomination{},
		shapes:     map[string]*shape{},
		counters:   map[string]*counter{},
		carried:    map[string]*carriedTerm{},
		topologies: map[string]*topology{},
		classes:    map[string]*class{},
		namespaces: map[string]labels.Set{},
		budgets:    map[types.NamespacedName]*policyv1.PodDisruptionBudget{},
		devices:    devices.New(),
		volumes:    volumes.New(),
	}
}

// SetNamespace sets the labels of a namespace, which namespaceSelectors look at.
func (st *State) SetNamespace(ns *corev1.Namespace) {
	old := st.namespaces[ns.Name]
	st.namespaces[ns.Name] = ns.Labels
	if !maps.Equal(old, labels.Set(ns.Labels)) {
		st.relabelled(ns.Name)
	}
}

// RemoveNamespace forgets a namespace.
func (st *State) RemoveNamespace(name string) { delete(st.namespaces, name) }

// relabelled starts anew with everything derived from namespace labels, if there are pods in that namespace.
func (st *State) relabelled(namespace string) {
	affected := false
	for _, sh := range st.shapes {
		affected = affected || sh.namespace == namespace
	}
	if !affected {
		return
	}
	st.rulesGen++
	clear(st.classes)
	clear(st.counters)
	for _, sh := range st.shapes {
		sh.class, sh.counters = nil, nil
	}
}

// SetBudget adds or updates a PodDisruptionBudget.
func (st *State) SetBudget(pdb *policyv1.PodDisruptionBudget) {
	st.budgets[types.NamespacedName{Namespace: pdb.Namespace, Name: pdb.Name}] = pdb
	st.forgetRejections()
}

// RemoveBudget forgets a PodDisruptionBudget.
func (st *State) RemoveBudget(key types.NamespacedName) {
	delete(st.budgets, key)
	st.forgetRejections()
}

func (st *State) forgetRejections() {
	for _, c := range st.classes {
		c.rejection = nil
	}
}

// touch notes that node i changed.
func (st *State) touch(i int32, itself bool) {
	entry := uint32(i) << 1
	if itself {
		entry |= 1
	}
	st.log = append(st.log, entry)
	if limit := 4*len(st.nodes) + st.logSlack; len(st.log) > limit {
		half := len(st.log) / 2
		st.logBase += uint64(half)
		st.log = append(st.log[:0], st.log[half:]...)
	}
}

func (st *State) logEnd() uint64 { return st.logBase + uint64(len(st.log)) }

// shapeOf returns the interned shape of pod. Who keeps it for longer than one call holds it.
func (st *State) shapeOf(pod *corev1.Pod) *shape {
	w := &st.key
	w.buf = w.buf[:0]
	staticLen := w.shapeKey(pod, ownerOf(pod), &st.scalars)
	if sh := st.shapes[string(w.buf)]; sh != nil {
		return sh
	}
	sh := newShape(pod, string(w.buf), staticLen, &st.scalars)
	st.sweepShapes()
	st.carry(sh)
	for _, c := range st.counters {
		if c.match(sh) {
			sh.counters = append(sh.counters, c)
		}
	}
	st.shapes[sh.key] = sh
	st.idleShapes++
	return sh
}

func (st *State) hold(sh *shape) {
	if sh.refs == 0 {
		st.idleShapes--
	}
	sh.refs++
}

func (st *State) letGo(sh *shape) {
	if sh.refs--; sh.refs == 0 {
		st.idleShapes++
	}
}

// sweepShapes drops shapes that no pod has once there are many.
func (st *State) sweepShapes() {
	if st.idleShapes <= 1024 {
		return
	}
	for key, sh := range st.shapes {
		if sh.refs == 0 {
			st.drop(sh)
			delete(st.shapes, key)
		}
	}
	st.idleShapes = 0
}
