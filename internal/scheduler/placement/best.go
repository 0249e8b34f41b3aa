package placement

import "math"

// Weights of the scores, as in kube-scheduler's default configuration. Those of free resources and balance are 1.
const (
	weightTaints   = 3
	weightNode     = 2
	weightSpread   = 2
	weightInterPod = 2
)

// view is what topology rules look at for a group of nodes, or for one node with victims taken out.
type view struct {
	at      []int32
	domains bool // at holds domains for narrow tables, too
	without *victims
}

// count returns the pods that table t, the i-th, finds in the domain; at[i] must not be noDomain.
func (v *view) count(i int, t *table) int32 {
	if v.domains {
		return t.sum[v.at[i]] - v.without.of(t)
	}
	return t.value(v.at[i])
}

// judge applies the rules that look at topology domains.
func (c *class) judge(v *view) judgement {
	if j := c.judgeSpread(v); j != fine {
		return j
	}
	return c.judgeInterPod(v)
}

// best returns the node with the highest score, and the score; -1 if no node is feasible. The class must be up to date.
func (c *class) best() (index int32, score int64) {
	c.feasible = c.feasible[:0]
	var worstTaints, bestPreferred int64
	nodes := 0
	for _, g := range c.groups {
		g.verdict = c.judge(&view{at: g.at})
		if g.verdict != fine {
			continue
		}
		c.feasible = append(c.feasible, g)
		worstTaints = max(worstTaints, g.static.taints)
		bestPreferred = max(bestPreferred, g.static.preferred)
		if c.softSpread {
			if g.ignored = c.spreadIgnores(g); !g.ignored {
				nodes += g.size
			}
		}
	}
	if len(c.feasible) == 0 {
		return -1, 0
	}
	if c.softSpread {
		c.weighSpread(c.feasible, nodes)
	}
	spreadMin, spreadMax := int64(math.MaxInt64), int64(0)
	affineMin, affineMax := int64(math.MaxInt64), int64(math.MinInt64)
	for _, g := range c.feasible {
		if c.softSpread && !g.ignored {
			g.spread = c.spreadRaw(g)
			spreadMin, spreadMax = min(spreadMin, g.spread), max(spreadMax, g.spread)
		}
		g.affine = c.affineRaw(g)
		affineMin, affineMax = min(affineMin, g.affine), max(affineMax, g.affine)
	}
	index = -1
	var waited uint64
	for _, g := range c.feasible {
		total := weightTaints*normalizeTaints(g.static.taints, worstTaints) +
			weightNode*normalizeAffinity(g.static.preferred, bestPreferred) +
			weightInterPod*normalizeAffine(g.affine, affineMin, affineMax)
		if c.softSpread && !g.ignored {
			total += weightSpread * normalizeSpread(g.spread, spreadMin, spreadMax)
		}
		i, local := g.top()
		total += local
		// Between groups, too, nodes with the same score take turns.
		if stamp := c.entries[i].stamp; index < 0 || total > score || total == score && stamp < waited {
			index, score, waited = i, total, stamp
		}
	}
	return index, score
}
