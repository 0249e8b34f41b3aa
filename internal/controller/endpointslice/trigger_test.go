package endpointslice

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// Proxies measure from this note how long a change took to reach them.
func TestSlicesNoteWhenWhatTheyAreAboutHappened(t *testing.T) {
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	readyAt := func(i int, seconds int64) *corev1.Pod {
		return pod(i, func(p *corev1.Pod) { ct.MakeReady(p, p.Status.PodIP, at(seconds)) })
	}
	notReadyAt := func(i int, seconds int64) *corev1.Pod {
		p := readyAt(i, seconds)
		for j := range p.Status.Conditions {
			p.Status.Conditions[j].Status = corev1.ConditionFalse
		}
		return p
	}
	svc := service(func(s *corev1.Service) { s.CreationTimestamp = metav1.Time{Time: at(100)} })
	var slices []*discoveryv1.EndpointSlice
	for _, step := range []struct {
		what string
		pods []*corev1.Pod
		want time.Time
	}{
		{"a Service is made for pods that are there", []*corev1.Pod{readyAt(0, 50)}, at(100)},
		{"a pod comes", []*corev1.Pod{readyAt(0, 50), readyAt(1, 200)}, at(200)},
		{"two come", []*corev1.Pod{readyAt(0, 50), readyAt(1, 200), readyAt(2, 300), readyAt(3, 310)}, at(310)},
		{"one is no longer ready", []*corev1.Pod{notReadyAt(0, 400), readyAt(1, 200), readyAt(2, 300), readyAt(3, 310)}, at(400)},
		{"one goes", []*corev1.Pod{notReadyAt(0, 400), readyAt(1, 200), readyAt(2, 300)}, time.Time{}},
	} {
		slices = settle(slices, planSlices(svc, step.pods, slices, zones()))
		want := ""
		if !step.want.IsZero() {
			want = step.want.UTC().Format(time.RFC3339Nano)
		}
		if len(slices) != 1 || slices[0].Annotations[corev1.EndpointsLastChangeTriggerTime] != want {
			t.Errorf("%s: %d slices, %v; want %q", step.what, len(slices), slices[0].Annotations, want)
		}
	}
}
