package placement

const (
	reasonSpread      = "node(s) didn't match pod topology spread constraints"
	reasonSpreadLabel = reasonSpread + " (missing required label)"
)

// judgeSpread checks the hard topology spread constraints: in each, the pods in the node's domain, with this one, may exceed
// the emptiest domain by maxSkew at most (KEP-895).
func (c *class) judgeSpread(v *view) judgement {
	for i, t := range c.tables {
		if t.rule != ruleSpreadHard {
			break // they come first
		}
		if v.at[i] == noDomain {
			return missesSpreadLabel
		}
		lowest := t.minimum()
		count := v.count(i, t)
		if v.without.of(t) > 0 {
			if t.domains >= int(t.minDomains) {
				lowest = min(lowest, count)
			}
		}
		if count+t.self-lowest > t.maxSkew {
			return breaksSpread
		}
	}
	return fine
}
