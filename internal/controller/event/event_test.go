package event

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "uid-of-" + "x"}}
}

func TestSumUpFoldsRepeats(t *testing.T) {
	e := Warning(pod("a"), "FailedCreate", "Error creating: quota")
	got := sumUp([]Event{e, e, e})
	if len(got) != 1 || got[0].count != 3 {
		t.Fatalf("three equal events: %+v, want one with count 3", got)
	}
}

func TestSumUpLimitsABurst(t *testing.T) {
	var events []Event
	for i := range 250 {
		events = append(events, Normal(pod("rs"), "SuccessfulCreate", "Created pod: p%d", i))
	}
	events = append(events, Normal(pod("rs"), "SuccessfulDelete", "Deleted pod: q"))
	got := sumUp(events)
	if len(got) != burst+2 {
		t.Fatalf("got %d events, want %d", len(got), burst+2)
	}
	var total int32
	for _, e := range got {
		total += e.count
	}
	if total != 251 {
		t.Errorf("counts add up to %d, want 251", total)
	}
	if want := "(combined from similar events): Created pod: p249"; got[burst].Message != want || got[burst].count != 240 {
		t.Errorf("sum is %q x%d, want %q x240", got[burst].Message, got[burst].count, want)
	}
}

func TestNameDependsOnWhatIsSaid(t *testing.T) {
	now := time.Unix(100, 0)
	name := func(component string, e Event) string { return build(e, component, 1, now).Name }
	a := name("c", Normal(pod("p"), "R", "m"))
	if b := name("c", Normal(pod("p"), "R", "m")); a != b {
		t.Errorf("equal events have names %s and %s", a, b)
	}
	others := []string{name("d", Normal(pod("p"), "R", "m")), name("c", Warning(pod("p"), "R", "m")),
		name("c", Normal(pod("p"), "S", "m")), name("c", Normal(pod("p"), "R", "n"))}
	for i, o := range others {
		if o == a {
			t.Errorf("event %d says something else but has the same name", i)
		}
	}
	long := build(Normal(pod(fmt.Sprintf("%0253d", 1)), "R", "m"), "c", 1, now)
	if len(long.Name) > 253 {
		t.Errorf("name of %d characters", len(long.Name))
	}
}

func TestClusterScopedObjectsReportToDefault(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	if ns := build(Normal(n, "NodeNotReady", "gone"), "c", 1, time.Unix(0, 0)).Namespace; ns != "default" {
		t.Errorf("namespace %q, want default", ns)
	}
}
