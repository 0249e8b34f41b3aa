package placement

// preferredPods sums preferred pod affinity and anti-affinity, the pod's own and that of the pods already placed.
var preferredPods = score{
	name: "InterPodAffinity", weight: 2,
	domains: func(c *class, g *group) (int64, bool) { return c.affineRaw(g), true },
	normal:  normalizeAffine,
}

func (c *class) affineRaw(g *group) int64 {
	sum := g.pull
	for i, t := range c.tables {
		if t.rule == ruleScore && t.wide && g.at[i] != noDomain {
			sum += t.weight * int64(t.sum[g.at[i]])
		}
	}
	return sum
}

// normalizeAffine maps sums to 0 (the lowest feasible) .. 100 (the highest).
func normalizeAffine(raw, lowest, highest int64) int64 {
	if highest <= lowest {
		return 0
	}
	return int64(maxScore * (float64(raw-lowest) / float64(highest-lowest)))
}
