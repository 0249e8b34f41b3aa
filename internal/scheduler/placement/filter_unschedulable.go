package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

const reasonUnschedulable = "node(s) were unschedulable"

// nodeUnschedulable keeps pods off cordoned nodes, except those that tolerate it as daemons do, with a toleration for the taint
// node.kubernetes.io/unschedulable.
var nodeUnschedulable = Filter{
	Name:  "NodeUnschedulable",
	Helps: NodeChanged,
	Next:  "uncordon the node (kubectl uncordon)",
	node: func(sh *shape, n *node) string {
		if n.obj.Spec.Unschedulable && !tolerates(sh.tolerations, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
			return reasonUnschedulable
		}
		return ""
	},
}

func tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	for i := range tolerations {
		if tolerations[i].ToleratesTaint(klog.Logger{}, taint, false) {
			return true
		}
	}
	return false
}
