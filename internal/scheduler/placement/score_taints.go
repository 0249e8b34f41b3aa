package placement

import corev1 "k8s.io/api/core/v1"

// dislikedTaints prefers nodes with few PreferNoSchedule taints that the pod does not tolerate.
var dislikedTaints = score{
	name: "TaintToleration", weight: 3,
	node: func(sh *shape, n *node) (count int64) {
		for i := range n.obj.Spec.Taints {
			t := &n.obj.Spec.Taints[i]
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !toleratesPreference(sh.tolerations, t) {
				count++
			}
		}
		return count
	},
	normal: func(count, _, worst int64) int64 {
		if worst == 0 {
			return maxScore
		}
		return maxScore - maxScore*count/worst
	},
}

// toleratesPreference looks only at tolerations for PreferNoSchedule or for every effect.
func toleratesPreference(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	for i := range tolerations {
		if e := tolerations[i].Effect; e != "" && e != corev1.TaintEffectPreferNoSchedule {
			continue
		}
		if tolerates(tolerations[i:i+1], taint) {
			return true
		}
	}
	return false
}
