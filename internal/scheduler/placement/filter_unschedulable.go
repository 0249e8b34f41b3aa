package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

const reasonUnschedulable = "node(s) were unschedulable"

// schedulable says that obj is not cordoned, or that the pod tolerates it as daemons do, with a toleration for the
// taint node.kubernetes.io/unschedulable.
func schedulable(obj *corev1.Node, tolerations []corev1.Toleration) bool {
	if !obj.Spec.Unschedulable {
		return true
	}
	return tolerates(tolerations, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
}

func tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	for i := range tolerations {
		if tolerations[i].ToleratesTaint(klog.Logger{}, taint, false) {
			return true
		}
	}
	return false
}
