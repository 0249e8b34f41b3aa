package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// evictMode is what to do about the taints that evict pods from a node that is not ready.
type evictMode int

const (
	evictKeep  evictMode = iota // leave them as they are
	evictNow                    // add the one that fits
	evictNever                  // take them away
)

// conditionTaint returns the key of the taint that a condition stands for, or "".
// See https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-nodes-by-condition.
func conditionTaint(c corev1.NodeCondition) string {
	switch c.Type {
	case corev1.NodeReady:
		switch c.Status {
		case corev1.ConditionFalse:
			return corev1.TaintNodeNotReady
		case corev1.ConditionUnknown:
			return corev1.TaintNodeUnreachable
		}
	case corev1.NodeMemoryPressure:
		if c.Status == corev1.ConditionTrue {
			return corev1.TaintNodeMemoryPressure
		}
	case corev1.NodeDiskPressure:
		if c.Status == corev1.ConditionTrue {
			return corev1.TaintNodeDiskPressure
		}
	case corev1.NodePIDPressure:
		if c.Status == corev1.ConditionTrue {
			return corev1.TaintNodePIDPressure
		}
	case corev1.NodeNetworkUnavailable:
		if c.Status == corev1.ConditionTrue {
			return corev1.TaintNodeNetworkUnavailable
		}
	}
	return ""
}

// ours reports whether a NoSchedule taint with this key follows from a node's state and nothing else.
func ours(key string) bool {
	switch key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure,
		corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable, corev1.TaintNodeUnschedulable:
		return true
	}
	return false
}

// evicts reports whether t is one of the two taints that evict pods from a node that is not ready.
func evicts(t corev1.Taint) bool {
	return t.Effect == corev1.TaintEffectNoExecute && (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable)
}

func hasEvictionTaint(node *corev1.Node) bool { return slices.ContainsFunc(node.Spec.Taints, evicts) }

// planTaints returns the taints node should have, or nil where it has them.
func planTaints(node *corev1.Node, evict evictMode, now time.Time) *[]corev1.Taint {
	var want []corev1.Taint // without those that are not ours
	for _, c := range node.Status.Conditions {
		if key := conditionTaint(c); key != "" {
			want = append(want, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	if node.Spec.Unschedulable {
		want = append(want, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	if t := evictionTaint(node, evict, now); t != nil {
		want = append(want, *t)
	}
	var out []corev1.Taint
	changed := false
	for _, t := range node.Spec.Taints {
		mine := t.Effect == corev1.TaintEffectNoSchedule && ours(t.Key) || evicts(t) && evict != evictKeep
		i := slices.IndexFunc(want, func(w corev1.Taint) bool { return w.Key == t.Key && w.Effect == t.Effect })
		switch {
		case i >= 0:
			want = slices.Delete(want, i, i+1)
		case mine:
			changed = true
			continue
		}
		out = append(out, t)
	}
	if len(want) == 0 && !changed {
		return nil
	}
	out = append(out, want...)
	return &out
}

// evictionTaint returns the taint that evicts, which a node that is not ready should get. It keeps the time at which the other one
// of the two was added: the time that pods tolerate counts on.
func evictionTaint(node *corev1.Node, evict evictMode, now time.Time) *corev1.Taint {
	ready := conditionOf(node, corev1.NodeReady)
	if evict != evictNow || ready == nil {
		return nil
	}
	key := conditionTaint(*ready)
	if key == "" {
		return nil
	}
	at := metav1.NewTime(now.Truncate(time.Second)) // as it is encoded: a node that sends its taints back has not changed them
	for _, t := range node.Spec.Taints {
		if evicts(t) && t.TimeAdded != nil {
			at = *t.TimeAdded
		}
	}
	return &corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute, TimeAdded: &at}
}
