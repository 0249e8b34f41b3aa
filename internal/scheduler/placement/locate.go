package placement

import (
	"encoding/binary"
	"slices"
)

// judgeStatic applies the filters and scores that look at the node alone.
func (c *class) judgeStatic(n *node) *static {
	sh := c.example
	if n.open && !sh.constrained && sh.preferred == nil {
		return c.plain
	}
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
	return c.intern(s)
}

// intern returns the shared copy of s: most nodes are alike.
func (c *class) intern(s static) *static {
	if shared := c.statics[s]; shared != nil {
		return shared
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
	score := scoreFit(n, sh, st.options.Packing) + scoreBalance(n, sh)
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
			g.update(i, score, n.stamp, c.entries)
			return
		}
		c.leave(i, e)
	} else if e.why != noVerdict {
		c.verdicts.count(e.why, -1)
		e.why = noVerdict
	}
	e.group = c.group(e.static, pull)
	e.group.push(i, score, n.stamp, c.entries)
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
	var held totals
	heldPods := 0
	if len(n.nominated) > 0 {
		held, heldPods = n.held(sh.priority)
	}
	var without []*podInfo
	if gone != nil {
		held.subAll(&gone.freed)
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
	g.remove(i, c.entries)
	e.group, e.why = nil, noVerdict
	for _, t := range c.tables {
		t.use(i, false)
	}
	if g.size > 0 {
		return
	}
	delete(c.byKey, g.key)
	last := c.groups[len(c.groups)-1]
	c.groups[g.slot] = last
	last.slot = g.slot
	c.groups = c.groups[:len(c.groups)-1]
}

// fewGroups is how many groups are looked at before their index is.
const fewGroups = 8

// group returns the group of nodes with these properties and the values in c.at.
func (c *class) group(s *static, pull int64) *group {
	for _, g := range c.groups[:min(len(c.groups), fewGroups)] { // cheaper than a key, where they are all there are
		if g.static.taints == s.taints && g.static.preferred == s.preferred && g.pull == pull && slices.Equal(g.at, c.at) {
			return g
		}
	}
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
