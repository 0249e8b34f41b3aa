package placement

import (
	"encoding/binary"
	"slices"
)

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
	if why := c.judgeRoom(st, n, e.static, nil); why != noVerdict {
		c.turnDown(i, e, why)
		return
	}
	score := c.roomScore(st, n)
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
		if g.static.raw == s.raw && g.pull == pull && slices.Equal(g.at, c.at) {
			return g
		}
	}
	b := binary.AppendVarint(c.keyBuf[:0], pull)
	for _, raw := range s.raw {
		b = binary.AppendVarint(b, raw)
	}
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
