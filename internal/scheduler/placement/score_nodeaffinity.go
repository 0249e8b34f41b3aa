package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

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

// normalizeAffinity maps a sum of matched weights to 0 .. 100 (the best feasible node).
func normalizeAffinity(weight, best int64) int64 {
	if best == 0 {
		return 0
	}
	return maxScore * weight / best
}
