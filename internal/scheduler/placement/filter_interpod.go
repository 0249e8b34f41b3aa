package placement

// interPodAffinity holds to required pod affinity (every term has a matching pod in the node's domain, or nobody matches yet and
// the pod would be its own first match), anti-affinity, and the anti-affinity of pods already placed.
var interPodAffinity = Filter{
	Name:    "InterPodAffinity",
	Helps:   NodeChanged | NodeGone | PodGone | PodPlaced | NamespaceChanged,
	Next:    "place the pods that the pod wants beside it, or soften the affinity rules to preferences",
	domains: judgeInterPod,
}

// Kubernetes takes missing affinity for something that removing pods does not cure.
var (
	missesAffinity = cause{reason: "node(s) didn't match pod affinity rules", unresolvable: true}
	breaksAnti     = cause{reason: "node(s) didn't match pod anti-affinity rules"}
	breaksExisting = cause{reason: "node(s) didn't satisfy existing pods anti-affinity rules"}
)

func judgeInterPod(c *class, v view) *cause {
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
		return &missesAffinity
	}
	for _, r := range [...]rule{ruleAnti, ruleExisting} {
		for i, t := range c.tables {
			if t.rule != r || v.at[i] == noDomain {
				continue
			}
			if v.count(i, t) > 0 {
				if r == ruleAnti {
					return &breaksAnti
				}
				return &breaksExisting
			}
		}
	}
	return nil
}
