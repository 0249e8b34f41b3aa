package times

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCut(t *testing.T) {
	long := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	var c Cutter

	micro := metav1.NewMicroTime(long)
	lease := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: &micro}}
	c.Cut(lease)
	if got := lease.Spec.RenewTime.Nanosecond(); got != 123456000 {
		t.Errorf("a MicroTime has %d ns", got)
	}
	if micro.Nanosecond() != 123456789 {
		t.Error("the writer's own time was changed")
	}

	conditions := []corev1.PodCondition{{LastTransitionTime: metav1.NewTime(long)}}
	pod := &corev1.Pod{Status: corev1.PodStatus{Conditions: conditions}}
	c.Cut(pod)
	if got := pod.Status.Conditions[0].LastTransitionTime.Nanosecond(); got != 0 {
		t.Errorf("a Time has %d ns", got)
	}
	if conditions[0].LastTransitionTime.Nanosecond() != 123456789 {
		t.Error("the writer's own conditions were changed")
	}

	whole := []corev1.PodCondition{{LastTransitionTime: metav1.NewTime(long.Truncate(time.Second))}}
	pod.Status.Conditions = whole
	c.Cut(pod)
	if &pod.Status.Conditions[0] != &whole[0] {
		t.Error("conditions with nothing to cut were copied")
	}
}
