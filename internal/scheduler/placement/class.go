package placement

import (
	"encoding/binary"
	"slices"
)

// class is how to place the pods of shapes that are the same to the scheduler: every node, either in a group of
// candidates or turned down with a verdict.
type class struct {
	key      string
	example  *shape
	tables   []*table // hard spreading first
	lastUse  uint64
	cursor   uint64 // position in State.log up to which the class is up to date
	entries  []entry
	groups   []*group
	byKey    map[string]*group
	verdicts verdicts
	statics  map[static]*static

	ownSpread  bool
	selfAffine bool // the pod matches all its own required affinity terms
	hardSpread bool
	softSpread bool

	rejection  *Rejection // of the last pod that could not be placed, while nothing changed
	rejectedAt uint64     // cursor at that time

	// Scratch.
	epoch    uint32
	dirty    []int32
	at       []int32
	keyBuf   []byte
	weights  []float64
	feasible []*group
}

// entry is what a class knows of one node.
type entry struct {
	group  *group // nil if turned down
	pos    int32  // in group.heap
	why    int32  // verdict, if turned down; noVerdict if there is no such node
	mark   uint32
	itself bool // the node itself changed
	static *static
}

// static is what a class finds about a node whatever is placed on it. Equal ones are shared.
type static struct {
	why       int32 // verdict, or noVerdict if the node will do
	matches   bool  // required node affinity
	tolerated bool  // no taint keeps the pod off
	taints    int64 // disliked taints
	preferred int64 // weight of matched node affinity preferences
}

// newClass builds the class of sh from nothing; key and specs come from resolve.
func newClass(st *State, sh *shape, key string, specs []tableSpec) *class {
	c := &class{
		key: key, example: sh, byKey: map[string]*group{}, statics: map[static]*static{}, ownSpread: sh.ownSpread,
		at: make([]int32, len(specs)), weights: make([]float64, len(specs)), selfAffine: selfAffine(sh, st),
	}
	for _, spec := range specs {
		c.tables = append(c.tables, newTable(st, spec))
		c.hardSpread = c.hardSpread || spec.rule == ruleSpreadHard
		c.softSpread = c.softSpread || spec.rule == ruleSpreadSoft
	}
	c.all(st)
	return c
}

// all looks at every node anew.
func (c *class) all(st *State) {
	c.grow(st)
	c.epoch++
	c.dirty = c.dirty[:0]
	for i := range st.nodes {
		c.entries[i].itself, c.entries[i].mark = true, c.epoch
		c.dirty = append(c.dirty, int32(i))
	}
	c.cursor = st.logEnd()
	c.refresh(st)
}

// catchUp looks at the nodes that changed since the class was last used.
func (c *class) catchUp(st *State) {
	st.used++
	c.lastUse = st.used
	if c.cursor == st.logEnd() {
		return
	}
	if c.cursor < st.logBase {
		c.all(st)
		return
	}
	c.grow(st)
	c.epoch++
	c.dirty = c.dirty[:0]
	for _, changed := range st.log[c.cursor-st.logBase:] {
		i := int32(changed >> 1)
		e := &c.entries[i]
		if e.mark != c.epoch {
			e.mark = c.epoch
			c.dirty = append(c.dirty, i)
		}
		if changed&1 != 0 {
			e.itself = true
		}
	}
	c.cursor = st.logEnd()
	c.refresh(st)
}

func (c *class) grow(st *State) {
	c.entries = slices.Grow(c.entries, len(st.nodes)-len(c.entries))
	for len(c.entries) < len(st.nodes) {
		c.entries = append(c.entries, entry{why: noVerdict})
	}
	for _, t := range c.tables {
		t.grow(len(st.nodes))
	}
}

// refresh looks at the dirty nodes: first what they count towards their domains, then where they and the other nodes of
// those domains belong.
func (c *class) refresh(st *State) {
	for _, i := range c.dirty {
		e := &c.entries[i]
		if !e.itself {
			continue
		}
		e.itself = false
		if e.group != nil {
			c.leave(i, e)
		}
		if st.nodes[i] != nil {
			e.static = c.judgeStatic(st.nodes[i])
		} else {
			e.static = nil
		}
	}
	for _, i := range c.dirty[:len(c.dirty):len(c.dirty)] {
		for _, t := range c.tables {
			left, joined := t.count(i, c.countsFor(t, i))
			if !t.wide && !t.perNode {
				c.dirtyDomain(t, left)
				c.dirtyDomain(t, joined)
			}
		}
	}
	for _, i := range c.dirty {
		c.locate(st, i)
	}
}

// dirtyDomain adds the nodes of a domain to those to be located.
func (c *class) dirtyDomain(t *table, domain int32) {
	if domain == noDomain || len(t.topo.members[domain]) < 2 {
		return
	}
	for _, i := range t.topo.members[domain] {
		if e := &c.entries[i]; e.mark != c.epoch {
			e.mark = c.epoch
			c.dirty = append(c.dirty, i)
		}
	}
}

// countsFor says that pods on node i count towards its domain in t: spreading leaves out nodes that the pod could not use
// by its selector or, if asked, its tolerations, and nodes without all labels.
func (c *class) countsFor(t *table, i int32) bool {
	s := c.entries[i].static
	if s == nil {
		return false
	}
	if t.rule != ruleSpreadHard && t.rule != ruleSpreadSoft {
		return true
	}
	if t.honorAffinity && !s.matches || t.honorTaints && !s.tolerated {
		return false
	}
	if t.rule == ruleSpreadSoft && !c.ownSpread {
		return true
	}
	for _, other := range c.tables {
		if other.rule == t.rule && other.topo.of[i] == noDomain {
			return false
		}
	}
	return true
}

// judgeStatic applies the filters and scores that look at the node alone.
func (c *class) judgeStatic(n *node) *static {
	sh := c.example
	s := static{why: noVerdict, matches: true}
	if sh.constrained {
		s.matches = matchesNode(sh.required, n.obj)
	}
	taint := untolerated(n.obj.Spec.Taints, sh.tolerations)
	s.tolerated = taint == nil
	s.taints = dislikedTaints(n.obj.Spec.Taints, sh.tolerations)
	if sh.preferred != nil {
		s.preferred = sh.preferred.Score(n.obj)
	}
	switch { // in Kubernetes' order: the first one that fails gives the reason
	case !schedulable(n.obj, sh.tolerations):
		s.why = c.verdicts.final(FilterUnschedulable, reasonUnschedulable)
	case taint != nil:
		s.why = c.verdicts.final(FilterTaints, taintReason(taint))
	case !s.matches:
		s.why = c.verdicts.final(FilterNodeAffinity, reasonNodeAffinity)
	}
	if shared := c.statics[s]; shared != nil {
		return shared // most nodes are alike
	}
	shared := new(static)
	*shared = s
	c.statics[s] = shared
	return shared
}

// locate puts node i into its group, or turns it down.
func (c *class) locate(st *State, i int32) {
	n, e := st.nodes[i], &c.entries[i]
	if n == nil {
		c.turnDown(i, e, noVerdict)
		return
	}
	if why := c.judgeLocal(st, n, e.static, nil); why != noVerdict {
		c.turnDown(i, e, why)
		return
	}
	sh := c.example
	rank := rankOf(scoreFit(n, sh, st.options.Packing)+scoreBalance(n, sh), n.stamp)
	var pull int64
	for j, t := range c.tables {
		c.at[j] = t.at(i)
		if t.rule == ruleScore && !t.wide {
			if c.at[j] != noDomain {
				pull += t.weight * int64(c.at[j])
			}
			c.at[j] = 0
		}
	}
	if g := e.group; g != nil {
		if g.static == e.static && g.pull == pull && slices.Equal(g.at, c.at) {
			g.update(int(e.pos), rank, c.entries)
			return
		}
		c.leave(i, e)
	} else if e.why != noVerdict {
		c.verdicts.count(e.why, -1)
		e.why = noVerdict
	}
	e.group = c.group(e.static, pull)
	e.group.push(i, rank, c.entries)
	for _, t := range c.tables {
		t.use(i, true)
	}
}

// judgeLocal applies the filters that look at the node and what is placed on it: not topology. gone takes victims out, or is
// nil.
func (c *class) judgeLocal(st *State, n *node, s *static, gone *victims) int32 {
	if s.why != noVerdict {
		return s.why
	}
	sh := c.example
	var held resources
	heldPods := 0
	if len(n.nominated) > 0 {
		held, heldPods = n.held(sh.priority)
	}
	var without []*podInfo
	if gone != nil {
		held.add(&gone.freed, -1)
		heldPods -= len(gone.pods)
		without = gone.pods
	}
	if !portsFree(n, sh.ports, without) || !portsUnclaimed(n, sh) {
		return c.verdicts.blocked(FilterPorts, reasonPorts)
	}
	if l := fits(n, &sh.requests, &held, heldPods); l != 0 {
		return c.verdicts.lacking(l, &st.scalars)
	}
	return noVerdict
}

// turnDown takes node i out of its group and notes why.
func (c *class) turnDown(i int32, e *entry, why int32) {
	if e.group != nil {
		c.leave(i, e)
	}
	if e.why != why {
		c.verdicts.count(e.why, -1)
		c.verdicts.count(why, 1)
		e.why = why
	}
}

func (c *class) leave(i int32, e *entry) {
	g := e.group
	g.remove(int(e.pos), c.entries)
	e.group, e.why = nil, noVerdict
	for _, t := range c.tables {
		t.use(i, false)
	}
	if len(g.heap) > 0 {
		return
	}
	delete(c.byKey, g.key)
	last := c.groups[len(c.groups)-1]
	c.groups[g.slot] = last
	last.slot = g.slot
	c.groups = c.groups[:len(c.groups)-1]
}

// group returns the group of nodes with these properties and the values in c.at.
func (c *class) group(s *static, pull int64) *group {
	b := binary.AppendVarint(c.keyBuf[:0], s.taints)
	b = binary.AppendVarint(b, s.preferred)
	b = binary.AppendVarint(b, pull)
	for _, at := range c.at {
		b = binary.AppendVarint(b, int64(at))
	}
	c.keyBuf = b
	if g := c.byKey[string(b)]; g != nil {
		return g
	}
	g := &group{key: string(b), slot: len(c.groups), static: s, at: slices.Clone(c.at), pull: pull}
	c.byKey[g.key] = g
	c.groups = append(c.groups, g)
	return g
}
