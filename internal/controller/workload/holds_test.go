package workload

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
)

func TestHoldsGrow(t *testing.T) {
	h := NewHolds()
	owner := api.Key{Name: "db"}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	pod := func(uid string, phase corev1.PodPhase) []*corev1.Pod {
		p := &corev1.Pod{}
		p.Name, p.UID, p.Status.Phase = "db-0", types.UID(uid), phase
		return []*corev1.Pod{p}
	}
	wait := func(uid string) time.Duration {
		until := h.Until(owner, pod(uid, corev1.PodFailed), now)[types.UID(uid)]
		d := until.Sub(now)
		now = until
		return d
	}
	for i, want := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
		if got := wait(string(rune('a' + i))); got != want {
			t.Errorf("failure %d is held for %v, want %v", i, got, want)
		}
	}
	if got := wait("d"); got != 0 {
		t.Errorf("the same one once more is held for another %v", got)
	}
	for range 40 {
		wait(now.String())
	}
	if got := wait("last"); got != longestHold {
		t.Errorf("after forty more it is %v, want %v", got, longestHold)
	}
	now = now.Add(longestHold*2 + time.Second)
	if got := wait("much later"); got != 0 {
		t.Errorf("after a long quiet it is %v, want none", got)
	}
	wait("again")
	ready := pod("ready", corev1.PodRunning)
	ready[0].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if got := h.Until(owner, ready, now); len(got) != 0 {
		t.Errorf("a pod that is ready is held: %v", got)
	}
	if got := wait("after one that was ready"); got != 0 {
		t.Errorf("after one that was ready it is %v, want none", got)
	}
	wait("second")
	h.Forget(owner)
	if got := wait("third"); got != 0 || len(h.known) != 1 {
		t.Errorf("after the owner is forgotten it is %v, want none", got)
	}
}

func TestTargetNode(t *testing.T) {
	p := &corev1.Pod{}
	if got := TargetNode(p); got != "" {
		t.Errorf("a pod that may go anywhere goes to %q", got)
	}
	p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}}}}}
	if got := TargetNode(p); got != "n1" {
		t.Errorf("a pod with an affinity to n1 goes to %q", got)
	}
	p.Spec.NodeName = "n2"
	if got := TargetNode(p); got != "n2" {
		t.Errorf("a pod on n2 goes to %q", got)
	}
}
