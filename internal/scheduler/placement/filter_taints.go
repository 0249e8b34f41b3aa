package placement

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// taintToleration keeps pods off nodes with a taint NoSchedule or NoExecute that they do not tolerate.
var taintToleration = Filter{
	Name:  "TaintToleration",
	Helps: NodeChanged,
	Next:  "remove the taint from the node (kubectl taint), or give the pod a toleration for it",
	node: func(sh *shape, n *node) string {
		for i := range n.obj.Spec.Taints {
			t := &n.obj.Spec.Taints[i]
			if t.Effect != corev1.TaintEffectNoSchedule && t.Effect != corev1.TaintEffectNoExecute {
				continue
			}
			if !tolerates(sh.tolerations, t) {
				return fmt.Sprintf("node(s) had untolerated taint {%s: %s}", t.Key, t.Value)
			}
		}
		return ""
	},
}
