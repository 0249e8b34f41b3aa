package placement

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
)

// spreadConstraint is one topology spread constraint, resolved. Kubernetes' default constraints for pods that state none (KEP-895) have
// owner set in place of a selector.
type spreadConstraint struct {
	topologyKey   string
	maxSkew       int32
	minDomains    int32
	hard          bool
	selector      labels.Selector
	owner         types.UID
	honorAffinity bool // count only nodes that match the pod's node selector and affinity
	honorTaints   bool // count only nodes whose taints the pod tolerates
	self          int32
	key           string // names the set of pods it counts
}

// newSpread resolves pod's constraints.
func newSpread(pod *corev1.Pod, owner types.UID) []spreadConstraint {
	if len(pod.Spec.TopologySpreadConstraints) == 0 {
		return defaultSpread(pod.Namespace, owner)
	}
	var out []spreadConstraint
	for i := range pod.Spec.TopologySpreadConstraints {
		c := &pod.Spec.TopologySpreadConstraints[i]
		s := spreadConstraint{
			topologyKey:   c.TopologyKey,
			maxSkew:       c.MaxSkew,
			minDomains:    1,
			hard:          c.WhenUnsatisfiable == corev1.DoNotSchedule,
			selector:      withOwnValues(selectorOf(c.LabelSelector), pod.Labels, c.MatchLabelKeys, selection.In),
			honorAffinity: c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
			honorTaints:   c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
		}
		if c.MinDomains != nil {
			s.minDomains = *c.MinDomains
		}
		if s.selector.Matches(labels.Set(pod.Labels)) {
			s.self = 1
		}
		s.key = fmt.Sprintf("spread|%s|%s", pod.Namespace, selectorKey(s.selector))
		out = append(out, s)
	}
	return out
}

// defaultSpread spreads the pods of one owner over nodes and zones where nothing else decides.
func defaultSpread(ns string, owner types.UID) []spreadConstraint {
	if owner == "" {
		return nil
	}
	key := fmt.Sprintf("owner|%s|%s", ns, owner)
	one := func(topologyKey string, maxSkew int32) spreadConstraint {
		return spreadConstraint{topologyKey: topologyKey, maxSkew: maxSkew, minDomains: 1, owner: owner, honorAffinity: true, self: 1, key: key}
	}
	return []spreadConstraint{one(corev1.LabelHostname, 3), one(corev1.LabelTopologyZone, 5)}
}

// counts reports whether the constraint counts pods of shape sh, found in namespace ns.
func (s *spreadConstraint) counts(ns string, sh *shape) bool {
	if sh.terminating || sh.namespace != ns {
		return false
	}
	if s.owner != "" {
		return sh.owner == s.owner
	}
	return !s.selector.Empty() && s.selector.Matches(sh.labels)
}
