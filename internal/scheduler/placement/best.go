package placement

// view is what topology rules look at for a group of nodes, or for one node with victims taken out.
type view struct {
	at      []int32
	domains bool // at holds domains for narrow tables, too
	without *victims
}

// count returns the pods that table t, the i-th, finds in the domain; at[i] must not be noDomain.
func (v view) count(i int, t *table) int32 {
	if v.domains {
		return t.sum[v.at[i]] - v.without.of(t)
	}
	return t.value(v.at[i])
}

// best returns the node with the highest score, and the score; -1 if no node is feasible. The class must be up to date.
func (c *class) best() (index int32, score int64) {
	c.feasible = c.feasible[:0]
	for _, g := range c.groups {
		if g.judgement = c.judge(view{at: g.at}); g.judgement.why == nil {
			c.feasible = append(c.feasible, g)
		}
	}
	c.rate()
	index = -1
	var waited uint64
	for _, g := range c.feasible {
		i, local := g.top()
		total := g.score + local
		// Between groups, too, nodes with the same score take turns.
		if stamp := c.entries[i].stamp; index < 0 || total > score || total == score && stamp < waited {
			index, score, waited = i, total, stamp
		}
	}
	return index, score
}
