package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

const reasonNodeAffinity = "node(s) didn't match Pod's node affinity/selector"

// matchesNode says that obj satisfies spec.nodeSelector and the required node affinity. A selector that does not
// parse matches nothing; the API server refuses such pods.
func matchesNode(required nodeaffinity.RequiredNodeAffinity, obj *corev1.Node) bool {
	ok, err := required.Match(obj)
	return ok && err == nil
}

// constrainsNodes says that pod has a node selector or required node affinity at all.
func constrainsNodes(spec *corev1.PodSpec) bool {
	return len(spec.NodeSelector) > 0 ||
		spec.Affinity != nil && spec.Affinity.NodeAffinity != nil &&
			spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
}
