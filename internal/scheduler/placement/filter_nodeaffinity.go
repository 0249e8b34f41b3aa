package placement

import corev1 "k8s.io/api/core/v1"

const reasonNodeAffinity = "node(s) didn't match Pod's node affinity/selector"

// nodeAffinity holds spec.nodeSelector and the required node affinity against the node's labels and name. A selector that does not
// parse matches nothing; the API server refuses such pods. A pin to one node is not its matter, see pin.
var nodeAffinity = Filter{
	Name:  "NodeAffinity",
	Helps: NodeChanged,
	Next:  "label a node as spec.nodeSelector and spec.affinity.nodeAffinity ask for, or change them",
	node: func(sh *shape, n *node) string {
		if !sh.constrained {
			return ""
		}
		if ok, err := sh.required.Match(n.obj); !ok || err != nil {
			return reasonNodeAffinity
		}
		return ""
	},
}

// constrainsNodes reports whether the pod has a node selector or required node affinity at all.
func constrainsNodes(spec *corev1.PodSpec) bool {
	return len(spec.NodeSelector) > 0 ||
		spec.Affinity != nil && spec.Affinity.NodeAffinity != nil &&
			spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
}
