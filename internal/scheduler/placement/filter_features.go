package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"
)

const reasonFeatures = "node(s) didn't match Pod's required features"

// nodeDeclaredFeatures keeps pods off nodes that do not declare a feature which they need (status.declaredFeatures, KEP-5328).
var nodeDeclaredFeatures = Filter{
	Name:  "NodeDeclaredFeatures",
	Helps: NodeChanged,
	Next:  "compare status.declaredFeatures of the nodes with what the pod's spec asks for, and upgrade nodes that lack it",
	node: func(sh *shape, n *node) string {
		if sh.features&^n.features != 0 {
			return reasonFeatures
		}
		return ""
	},
}

// featureSet is a set of features, by their place in Kubernetes' registry.
type featureSet uint64

// declaredBy returns the features that a node declares.
func declaredBy(obj *corev1.Node) (set featureSet) {
	for _, name := range obj.Status.DeclaredFeatures {
		for i, f := range features.AllFeatures {
			if f.Name() == name {
				set |= 1 << i
			}
		}
	}
	return set
}

// neededBy returns the features without which a node cannot run the pod that info stands for.
func neededBy(info *types.PodInfo) (set featureSet) {
	for i, f := range features.AllFeatures {
		if f.InferForScheduling(info) {
			set |= 1 << i
		}
	}
	return set
}
