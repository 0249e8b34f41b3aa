package placement

import "math"

// evenSpread prefers domains with few of the pods that the soft topology spread constraints mean.
var evenSpread = score{
	name: "PodTopologySpread", weight: 2,
	prepare: func(c *class) {
		if !c.softSpread {
			return
		}
		nodes := 0
		for _, g := range c.feasible {
			if g.ignored = c.spreadIgnores(g); !g.ignored {
				nodes += g.size
			}
		}
		c.weighSpread(c.feasible, nodes)
	},
	domains: func(c *class, g *group) (int64, bool) {
		if !c.softSpread || g.ignored {
			return 0, false
		}
		return c.spreadRaw(g), true
	},
	normal: normalizeSpread,
}

// spreadWeight makes the counts of topologies with few and with many domains comparable.
func spreadWeight(domains int) float64 { return math.Log(float64(domains + 2)) }

// spreadIgnores reports whether the pod's own soft constraints leave these nodes out, as they lack one of the labels.
func (c *class) spreadIgnores(g *group) bool {
	if !c.ownSpread {
		return false
	}
	for i, t := range c.tables {
		if t.rule == ruleSpreadSoft && g.at[i] == noDomain {
			return true
		}
	}
	return false
}

// spreadRaw sums the soft constraints for a group: the more matching pods near, the worse.
func (c *class) spreadRaw(g *group) int64 {
	var sum float64
	for i, t := range c.tables {
		if t.rule == ruleSpreadSoft && g.at[i] != noDomain {
			sum += float64(t.value(g.at[i]))*c.weights[i] + float64(t.maxSkew-1)
		}
	}
	return int64(math.Round(sum))
}

// weighSpread sets weights from how many domains the feasible nodes are in. nodes counts the feasible nodes that are not
// ignored. (Topologies of more than manyDomains domains count those that have a node with room.)
func (c *class) weighSpread(feasible []*group, nodes int) {
	for i, t := range c.tables {
		if t.rule != ruleSpreadSoft {
			continue
		}
		domains := 0
		switch {
		case t.perNode:
			domains = nodes
		case !t.wide:
			domains = int(t.usableDomains)
		default:
			c.epoch++
			unlabelled := false
			for _, g := range feasible {
				if g.ignored {
					continue
				}
				if d := g.at[i]; d == noDomain {
					unlabelled = true
				} else if t.mark[d] != c.epoch {
					t.mark[d] = c.epoch
					domains++
				}
			}
			if unlabelled {
				domains++
			}
		}
		c.weights[i] = spreadWeight(domains)
	}
}

// normalizeSpread maps raw sums so that the fullest feasible node is lowest.
func normalizeSpread(raw, lowest, highest int64) int64 {
	if highest == 0 {
		return maxScore
	}
	return maxScore * (highest + lowest - raw) / highest
}
