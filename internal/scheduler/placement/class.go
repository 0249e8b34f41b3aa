package placement

import "slices"

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
	plain    *static // of nodes against which nothing can be said

	ownSpread  bool
	selfAffine bool // the pod matches all its own required affinity terms
	hardSpread bool
	softSpread bool
	// Whether spreading counts only nodes that match the node affinity, or whose taints are tolerated.
	honorsAffinity, honorsTaints bool

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
	static *static
	stamp  uint64 // of the node, when it joined its line
	prev   int32  // in its line
	next   int32
	why    int32 // verdict, if turned down; noVerdict if there is no such node
	mark   uint32
	level  int16 // its line in the group
	itself bool  // the node itself changed
}

// static is what a class finds about a node whatever is placed on it. Equal ones are shared.
type static struct {
	why       int32 // verdict, or noVerdict if the node will do
	matches   bool  // required node affinity, where spreading asks for it
	tolerated bool  // no taint keeps the pod off, where spreading asks for it
	raw       [nodeScoreCount]int64
}

// newClass builds the class of sh from nothing; key and specs come from resolve.
func newClass(st *State, sh *shape, key string, specs []tableSpec) *class {
	c := &class{
		key: key, example: sh, byKey: map[string]*group{}, statics: map[static]*static{}, ownSpread: sh.ownSpread,
		at: make([]int32, len(specs)), weights: make([]float64, len(specs)), selfAffine: selfAffine(sh, st),
	}
	c.plain = c.intern(static{why: noVerdict, matches: true, tolerated: true})
	for _, spec := range specs {
		c.tables = append(c.tables, newTable(st, spec))
		c.hardSpread = c.hardSpread || spec.rule == ruleSpreadHard
		c.softSpread = c.softSpread || spec.rule == ruleSpreadSoft
		c.honorsAffinity = c.honorsAffinity || spec.honorAffinity
		c.honorsTaints = c.honorsTaints || spec.honorTaints
	}
	c.all(st)
	return c
}

// all looks at every node anew.
func (c *class) all(st *State) {
	c.grow(st)
	c.epoch++
	c.dirty = c.dirty[:0]
	c.dirty = slices.Grow(c.dirty, len(st.nodes))[:len(st.nodes)]
	for i := range st.nodes {
		c.entries[i].itself, c.entries[i].mark = true, c.epoch
		c.dirty[i] = int32(i)
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
	if more := len(st.nodes) - len(c.entries); more > 0 {
		c.entries = slices.Grow(c.entries, more)[:len(st.nodes)]
		for i := len(st.nodes) - more; i < len(st.nodes); i++ {
			c.entries[i].why = noVerdict
		}
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

// countsFor reports whether pods on node i count towards its domain in t: spreading leaves out nodes that the pod could not use
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
