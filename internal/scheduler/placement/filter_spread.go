package placement

// podTopologySpread holds to the hard topology spread constraints: in each, the pods in the node's domain, with this one, may
// exceed the emptiest domain by maxSkew at most (KEP-895).
var podTopologySpread = Filter{
	Name:    "PodTopologySpread",
	Helps:   NodeChanged | NodeGone | PodGone | PodPlaced,
	Next:    "add nodes to the emptier domains, raise maxSkew, or use whenUnsatisfiable: ScheduleAnyway",
	domains: judgeSpread,
}

var (
	breaksSpread      = cause{reason: "node(s) didn't match pod topology spread constraints"}
	missesSpreadLabel = cause{reason: breaksSpread.reason + " (missing required label)", unresolvable: true}
)

func judgeSpread(c *class, v view) *cause {
	for i, t := range c.tables {
		if t.rule != ruleSpreadHard {
			break // they come first
		}
		if v.at[i] == noDomain {
			return &missesSpreadLabel
		}
		lowest := t.minimum()
		count := v.count(i, t)
		if v.without.of(t) > 0 {
			if t.domains >= int(t.minDomains) {
				lowest = min(lowest, count)
			}
		}
		if count+t.self-lowest > t.maxSkew {
			return &breaksSpread
		}
	}
	return nil
}
