package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// preferredNodes sums the weights of the preferred node affinity terms that the node matches.
var preferredNodes = score{
	name: "NodeAffinity", weight: 2,
	node: func(sh *shape, n *node) int64 {
		if sh.preferred == nil {
			return 0
		}
		return sh.preferred.Score(n.obj)
	},
	normal: func(weight, _, best int64) int64 {
		if best == 0 {
			return 0
		}
		return maxScore * weight / best
	},
}

// preferencesOf parses the preferred node affinity of a pod, or returns nil where there is none.
func preferencesOf(spec *corev1.PodSpec) *nodeaffinity.PreferredSchedulingTerms {
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return nil
	}
	terms := spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	if len(terms) == 0 {
		return nil
	}
	preferred, err := nodeaffinity.NewPreferredSchedulingTerms(terms)
	if err != nil {
		return nil // the API server refuses such pods
	}
	return preferred
}
