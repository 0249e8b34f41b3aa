package podstate

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAvailable(t *testing.T) {
	now := time.Unix(1000, 0)
	ready := func(status corev1.ConditionStatus, since time.Time) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(since)}}}}
	}
	for _, c := range []struct {
		name  string
		pod   *corev1.Pod
		min   int32
		ok    bool
		after time.Duration
	}{
		{"no condition", &corev1.Pod{}, 0, false, 0},
		{"not ready", ready("False", now.Add(-time.Hour)), 0, false, 0},
		{"ready, no minimum", ready("True", now), 0, true, 0},
		{"ready too short", ready("True", now.Add(-4*time.Second)), 10, false, 6 * time.Second},
		{"ready exactly long enough", ready("True", now.Add(-10*time.Second)), 10, true, 0},
		{"ready since an unknown time", ready("True", time.Time{}), 10, false, 0},
	} {
		if ok, after := Available(c.pod, c.min, now); ok != c.ok || after != c.after {
			t.Errorf("%s: got %v after %v, want %v after %v", c.name, ok, after, c.ok, c.after)
		}
	}
}

func TestActive(t *testing.T) {
	deleted := metav1.Now()
	for _, c := range []struct {
		phase               corev1.PodPhase
		deleted             *metav1.Time
		active, terminating bool
	}{
		{corev1.PodPending, nil, true, false},
		{corev1.PodRunning, nil, true, false},
		{corev1.PodRunning, &deleted, false, true},
		{corev1.PodFailed, nil, false, false},
		{corev1.PodSucceeded, &deleted, false, false},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: c.deleted}, Status: corev1.PodStatus{Phase: c.phase}}
		if Active(p) != c.active || Terminating(p) != c.terminating {
			t.Errorf("%s deleted=%v: active %v terminating %v, want %v %v", c.phase, c.deleted != nil, Active(p), Terminating(p), c.active, c.terminating)
		}
	}
}
