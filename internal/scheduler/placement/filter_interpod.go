package placement

const (
	reasonAffinity = "node(s) didn't match pod affinity rules"
	reasonAnti     = "node(s) didn't match pod anti-affinity rules"
	reasonExisting = "node(s) didn't satisfy existing pods anti-affinity rules"
)

// judgeInterPod checks required pod affinity (every term has a matching pod in the node's domain, or nobody matches yet
// and the pod would be its own first match), anti-affinity, and the anti-affinity of pods already placed.
func (c *class) judgeInterPod(v *view) judgement {
	missing, unmet, placed := false, false, int64(0)
	for i, t := range c.tables {
		if t.rule != ruleAffinity {
			continue
		}
		if v.at[i] == noDomain {
			missing = true
			break
		}
		if v.count(i, t) <= 0 {
			unmet = true
		}
		placed += t.total - int64(v.without.of(t))
	}
	if missing || unmet && (placed > 0 || !c.selfAffine) {
		return missesAffinity
	}
	for _, r := range [...]rule{ruleAnti, ruleExisting} {
		for i, t := range c.tables {
			if t.rule != r || v.at[i] == noDomain {
				continue
			}
			if v.count(i, t) > 0 {
				if r == ruleAnti {
					return breaksAnti
				}
				return breaksExisting
			}
		}
	}
	return fine
}
