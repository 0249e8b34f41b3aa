package placement

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Filter is one rule that turns nodes, or a pod as a whole, down. A new one is a file with a Filter in it and a line in one of the
// lists below.
type Filter struct {
	// Name is that of kube-scheduler's plugin.
	Name string
	// Helps are the events after which the filter may decide differently: the queueing hints of KEP-4247.
	Helps Events
	// Next is what people can do about it.
	Next string

	// One of these is set, by what the filter looks at. The reasons are Kubernetes' words; none means that all is well.

	// pod looks at the pod and what belongs to it, whatever the nodes are like.
	pod func(st *State, pod *corev1.Pod) (reason string)
	// node looks at a node by itself, which nothing that is placed there changes. It is asked once for each node and class.
	node func(sh *shape, n *node) (reason string)
	// room looks at what a node has left; r is nil if nothing is held there and nothing taken out. It is asked whenever something came to the node or left it. words gives the
	// reasons for what it found lacking.
	room  func(sh *shape, n *node, r *room) lack
	words func(l lack, names *scalars) []string
	// domains looks at what is placed around a group of nodes. It is asked for each group and pod.
	domains func(c *class, v view) *cause
}

// The filters by what they look at. Within a list, and from list to list, they are asked in Kubernetes' order, and the first that
// turns a node down gives the reason.
var (
	podFilters    = [...]*Filter{&volumeBinding, &dynamicResources}
	nodeFilters   = [...]*Filter{&nodeUnschedulable, &taintToleration, &nodeAffinity, &nodeDeclaredFeatures}
	roomFilters   = [...]*Filter{&nodePorts, &nodeResourcesFit}
	domainFilters = [...]*Filter{&podTopologySpread, &interPodAffinity}
	// What needs are turned down by, besides the filters of the pod. They have no function.
	needFilters = [...]*Filter{&volumeRestrictions, &nodeVolumeLimits, &volumeZone}
)

// filters returns all filters; the position of each is its bit in a FilterSet.
func filters() []*Filter {
	all := make([]*Filter, 0, 16)
	all = append(all, podFilters[:]...)
	all = append(all, nodeFilters[:]...)
	all = append(all, roomFilters[:]...)
	all = append(all, domainFilters[:]...)
	return append(all, needFilters[:]...)
}

// FilterSet is a set of filters.
type FilterSet uint16

// setOf returns the set of f alone.
func setOf(f *Filter) FilterSet {
	for i, other := range filters() {
		if f == other {
			return 1 << i
		}
	}
	return 0
}

// String lists the filters' names.
func (s FilterSet) String() string {
	var names []string
	for i, f := range filters() {
		if s&(1<<i) != 0 {
			names = append(names, f.Name)
		}
	}
	return strings.Join(names, ",")
}

// Events is a set of kinds of events that may make a rejected pod placeable.
type Events uint8

// The kinds of events.
const (
	NodeChanged      Events = 1 << iota // a node came, or changed other than by a heartbeat
	NodeGone                            // domains may have become fewer
	PodGone                             // a placed pod went, or will use less
	PodPlaced                           // a pod was placed, or a placed one changed its labels
	ClaimChanged                        // a PersistentVolumeClaim, a volume, or what these are judged by
	NamespaceChanged                    // the labels of a namespace
	RoomReturned                        // room kept for a nominated pod was given up
	DevicesChanged                      // devices came, went or were given back, or a claim or class came
)

// HelpedBy returns the filters that may decide differently after such events.
func HelpedBy(e Events) (helped FilterSet) {
	for i, f := range filters() {
		if f.Helps&e != 0 {
			helped |= 1 << i
		}
	}
	return helped
}

// cause is why a filter of domains turns a group down.
type cause struct {
	reason string
	// unresolvable reports whether it would not help to take pods off the nodes.
	unresolvable bool
}

// judgement is what the filters of domains say of a group of nodes; the zero value is that all is well.
type judgement struct {
	by  *Filter
	why *cause
}

func (j judgement) verdict() verdict {
	return verdict{filter: j.by, reasons: []string{j.why.reason}, unresolvable: j.why.unresolvable}
}

// judge asks the filters of domains.
func (c *class) judge(v view) judgement {
	for _, f := range domainFilters {
		if why := f.domains(c, v); why != nil {
			return judgement{f, why}
		}
	}
	return judgement{}
}

// judgeStatic asks the filters and scores that look at the node alone.
func (c *class) judgeStatic(n *node) *static {
	sh := c.example
	if n.open && !sh.choosy {
		return c.plain
	}
	s := static{why: noVerdict, matches: true, tolerated: true}
	for _, f := range nodeFilters {
		if reason := f.node(sh, n); reason != "" {
			s.why = c.verdicts.final(f, reason)
			break
		}
	}
	if c.honorsAffinity {
		s.matches = nodeAffinity.node(sh, n) == ""
	}
	if c.honorsTaints {
		s.tolerated = taintToleration.node(sh, n) == ""
	}
	if s.why == noVerdict {
		for i, score := range nodeScores {
			s.raw[i] = score.node(sh, n)
		}
	}
	return c.intern(s)
}

// room is what is held of a node beyond what is placed there (pods nominated to it), less what victims would free.
type room struct {
	held totals
	pods int
	// without are the victims.
	without []*podInfo
}

// judgeRoom asks the filters that look at a node and what is placed on it. gone takes victims out, or is nil.
func (c *class) judgeRoom(st *State, n *node, s *static, gone *victims) int32 {
	if s.why != noVerdict {
		return s.why
	}
	sh := c.example
	var r *room
	if len(n.nominated) > 0 || gone != nil {
		r = &room{}
		r.held, r.pods = n.held(sh.priority)
	}
	if gone != nil {
		r.held.subAll(&gone.freed)
		r.pods -= len(gone.pods)
		r.without = gone.pods
	}
	for _, f := range roomFilters {
		if l := f.room(sh, n, r); l != 0 {
			return c.verdicts.lacking(f, l, &st.scalars)
		}
	}
	return noVerdict
}
