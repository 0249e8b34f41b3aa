package placement

import corev1 "k8s.io/api/core/v1"

// dislikedTaints counts the PreferNoSchedule taints that the pod does not tolerate; fewer is better.
func dislikedTaints(taints []corev1.Taint, tolerations []corev1.Toleration) int64 {
	var count int64
	for i := range taints {
		if taints[i].Effect == corev1.TaintEffectPreferNoSchedule && !toleratesPreference(tolerations, &taints[i]) {
			count++
		}
	}
	return count
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

// normalizeTaints maps a count of disliked taints to 100 (none) .. 0 (as many as the worst feasible node).
func normalizeTaints(count, worst int64) int64 {
	if worst == 0 {
		return maxScore
	}
	return maxScore - maxScore*count/worst
}
