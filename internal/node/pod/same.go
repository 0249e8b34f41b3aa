package pod

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// newer reports whether resource version a comes after b. Versions are numbers (KEP-5504).
func newer(a, b string) bool {
	x, err1 := strconv.ParseUint(a, 10, 64)
	y, err2 := strconv.ParseUint(b, 10, 64)
	return err1 != nil || err2 != nil || x > y
}

func sameInt(a, b *int64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func sameMeta(a, b *corev1.Pod) bool {
	return sameMap(a.Labels, b.Labels) && sameMap(a.Annotations, b.Annotations)
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// sameForeign reports whether the parts of a status that others write are equal.
func sameForeign(a, b *corev1.PodStatus) bool {
	return apiequality.Semantic.DeepEqual(foreign(a), foreign(b))
}

func foreign(s *corev1.PodStatus) []corev1.PodCondition {
	var out []corev1.PodCondition
	for _, c := range s.Conditions {
		if !lifecycle.Owned(c.Type) {
			out = append(out, c)
		}
	}
	return out
}
