package workload

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRank(t *testing.T) {
	now := time.Unix(1e6, 0)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	base := func() *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour)},
			Spec:       corev1.PodSpec{NodeName: "n"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(time.Hour)}},
				ContainerStatuses: []corev1.ContainerStatus{{RestartCount: 1}}},
		}
	}
	always := corev1.ContainerRestartPolicyAlways
	for _, tc := range []struct {
		name  string
		first func(p *corev1.Pod) // makes a pod that goes before the base pod
	}{
		{"unassigned", func(p *corev1.Pod) { p.Spec.NodeName = "" }},
		{"pending", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }},
		{"unknown phase", func(p *corev1.Pod) { p.Status.Phase = corev1.PodUnknown }},
		{"not ready", func(p *corev1.Pod) { p.Status.Conditions = nil }},
		{"cheap", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "-1"} }},
		{"doubled up", func(p *corev1.Pod) { p.Spec.NodeName = "crowded" }},
		{"ready for less", func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = ago(time.Minute) }},
		{"restarted more", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].RestartCount = 2 }},
		{"sidecar restarted more", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "s", RestartPolicy: &always}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "s", RestartCount: 3}}
		}},
		{"younger", func(p *corev1.Pod) { p.CreationTimestamp = ago(time.Minute) }},
	} {
		a, b := base(), base()
		a.Name, b.Name = "first", "second"
		tc.first(a)
		crowd := base()
		crowd.Spec.NodeName = "crowded"
		related := []*corev1.Pod{a, b, crowd}
		if tc.name != "doubled up" {
			related = nil
		}
		for _, pods := range [][]*corev1.Pod{{a, b}, {b, a}} {
			Rank(pods, related, now)
			if pods[0] != a {
				t.Errorf("%s: does not go first", tc.name)
			}
		}
	}
}

func TestRankOrderOfRules(t *testing.T) {
	now := time.Unix(1e6, 0)
	// Each pod loses by the rule after the one by which it wins against the next.
	pods := []*corev1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "0"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}},
		{ObjectMeta: metav1.ObjectMeta{Name: "1"}, Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodPending}},
		{ObjectMeta: metav1.ObjectMeta{Name: "2"}, Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}},
		{ObjectMeta: metav1.ObjectMeta{Name: "3", Annotations: map[string]string{corev1.PodDeletionCost: "+7"}}, Spec: corev1.PodSpec{NodeName: "n"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "4", Annotations: map[string]string{corev1.PodDeletionCost: "7"}}, Spec: corev1.PodSpec{NodeName: "n"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}},
	}
	shuffled := []*corev1.Pod{pods[3], pods[1], pods[4], pods[0], pods[2]}
	Rank(shuffled, nil, now)
	for i, p := range shuffled {
		if p.Name != fmt.Sprint(i) {
			t.Errorf("place %d: pod %s", i, p.Name)
		}
	}
}

// TestRankByAge: pods of Jobs go the youngest first, to the second, whatever they cost.
func TestRankByAge(t *testing.T) {
	at := func(seconds int) metav1.Time { return metav1.NewTime(time.Unix(1e6+int64(seconds), 0)) }
	pod := func(name string, created, ready int, cost string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: at(created), Annotations: map[string]string{corev1.PodDeletionCost: cost}},
			Spec:       corev1.PodSpec{NodeName: "n"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at(ready)}}},
		}
	}
	pending := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "0", CreationTimestamp: at(0)}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
	want := []*corev1.Pod{pending, pod("1", 1, 9, "9"), pod("2", 2, 8, "1"), pod("3", 4, 7, "1"), pod("4", 3, 7, "0")}
	got := []*corev1.Pod{want[3], want[1], want[4], want[0], want[2]}
	RankByAge(got)
	for i, p := range got {
		if p != want[i] {
			t.Errorf("place %d: pod %s", i, p.Name)
		}
	}
}
