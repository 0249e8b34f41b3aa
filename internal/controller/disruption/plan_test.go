package disruption

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

var now = time.Unix(1_000_000, 0)

func budget(change func(*policyv1.PodDisruptionBudget)) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "b", Generation: 3},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: ct.Selector("web")},
	}
	if change != nil {
		change(b)
	}
	return b
}

func minAvailable(v string) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = ptr.To(intstr.Parse(v)) }
}

func maxUnavailable(v string) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = ptr.To(intstr.Parse(v)) }
}

// makePods reads "rs:ready rs:unready rs:leaving -:ready": the controller of each pod and how it is. The first pod is p0.
func makePods(text string) []*corev1.Pod {
	var out []*corev1.Pod
	for i, word := range strings.Fields(text) {
		owner, state, _ := strings.Cut(word, ":")
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("p%d", i)}}
		if owner != "-" {
			p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(owner), Name: owner, Controller: ptr.To(true)}}
		}
		if state != "unready" {
			ct.MakeReady(p, "10.0.0.1", now)
		}
		if state == "leaving" {
			p.DeletionTimestamp = &metav1.Time{Time: now}
		}
		out = append(out, p)
	}
	return out
}

// tenEach are the scales of what controls pods: ten pods each, those named old and new belong to one Deployment.
func tenEach(pods []*corev1.Pod) scales {
	out := scales{}
	for _, p := range pods {
		ref := metav1.GetControllerOfNoCopy(p)
		switch {
		case ref == nil:
		case ref.Name == "old" || ref.Name == "new":
			out[ref.UID] = scale{"deployment", 10}
		default:
			out[ref.UID] = scale{ref.UID, 10}
		}
	}
	return out
}

func TestPlanStatus(t *testing.T) {
	for _, test := range []struct {
		name   string
		budget func(*policyv1.PodDisruptionBudget)
		pods   string
		want   string // expected/desired/healthy/allowed, or an error
	}{
		{"no pods", minAvailable("1"), "", "0/1/0/0"},
		{"an absolute minimum counts the pods that are there", minAvailable("2"), "rs:ready rs:ready rs:ready -:ready", "4/2/4/2"},
		{"an absolute minimum asks for no scale", minAvailable("0"), "rs:ready rs:unready", "2/0/1/1"},
		{"fewer healthy than wanted", minAvailable("3"), "rs:ready rs:ready rs:unready", "3/3/2/0"},
		{"pods that leave are not healthy", minAvailable("1"), "rs:ready rs:leaving rs:leaving", "3/1/1/0"},
		{"a relative minimum is of the scale", minAvailable("30%"), "rs:ready rs:ready rs:ready rs:ready", "10/3/4/1"},
		{"a relative minimum is rounded up", minAvailable("31%"), "rs:ready rs:ready rs:ready rs:ready rs:ready", "10/4/5/1"},
		{"an absolute maximum", maxUnavailable("7"), "rs:ready rs:ready rs:ready rs:ready", "10/3/4/1"},
		{"a relative maximum is rounded up", maxUnavailable("61%"), "rs:ready rs:ready rs:ready rs:ready", "10/3/4/1"},
		{"a maximum above the scale", maxUnavailable("40"), "rs:ready", "10/0/1/1"},
		{"a maximum of nothing", maxUnavailable("0"), "rs:ready rs:ready", "10/10/2/0"},
		{"several controllers", maxUnavailable("50%"), "a:ready b:ready a:ready b:unready", "20/10/3/0"},
		{"two ReplicaSets of one Deployment", maxUnavailable("80%"), "old:ready old:ready new:ready new:unready", "10/2/3/1"},
		{"pods without a controller expect nothing but are healthy", maxUnavailable("9"), "-:ready rs:ready -:ready", "10/1/3/2"},
		{"only pods without a controller allow nothing", maxUnavailable("1"), "-:ready -:ready", "0/0/2/0"},
		{"no number", maxUnavailable("many"), "rs:ready", "spec.maxUnavailable"},
		{"neither minimum nor maximum", nil, "rs:ready", "0/0/1/0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pdb := budget(test.budget)
			before := pdb.DeepCopy()
			out, err := planStatus(pdb, makePods(test.pods), tenEach(makePods(test.pods)), now)
			if err != nil {
				if !strings.Contains(err.Error(), test.want) {
					t.Fatalf("error %v, want %s", err, test.want)
				}
				return
			}
			s := out.status
			if got := fmt.Sprintf("%d/%d/%d/%d", s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy, s.DisruptionsAllowed); got != test.want {
				t.Errorf("expected/desired/healthy/allowed is %s, want %s", got, test.want)
			}
			c := s.Conditions[0]
			want := metav1.Condition{Type: "DisruptionAllowed", Status: "False", Reason: "InsufficientPods", ObservedGeneration: 3, LastTransitionTime: metav1.NewTime(now)}
			if s.DisruptionsAllowed > 0 {
				want.Status, want.Reason = "True", "SufficientPods"
			}
			if len(s.Conditions) != 1 || c != want || s.ObservedGeneration != 3 {
				t.Errorf("conditions %+v, generation %d", s.Conditions, s.ObservedGeneration)
			}
			if !equality.Semantic.DeepEqual(before, pdb) {
				t.Error("the shared budget was changed")
			}
		})
	}
}

func TestDisruptedPods(t *testing.T) {
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	pdb := budget(minAvailable("1"))
	pdb.Status.DisruptedPods = map[string]metav1.Time{
		"p0": ago(time.Second), "p1": ago(90 * time.Second), // granted, will be deleted
		"p2":    ago(2 * time.Minute), // granted too long ago
		"p3":    ago(time.Second),     // being deleted
		"ghost": ago(time.Second),     // deleted
	}
	out, err := planStatus(pdb, makePods("rs:ready rs:ready rs:ready rs:leaving rs:ready rs:ready"), tenEach(makePods("rs:ready rs:ready rs:ready rs:leaving rs:ready rs:ready")), now)
	if err != nil {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(out.status.DisruptedPods)); !slices.Equal(names, []string{"p0", "p1"}) {
		t.Errorf("still to be deleted: %v, want p0 and p1", names)
	}
	if out.status.CurrentHealthy != 3 || out.status.DisruptionsAllowed != 2 {
		t.Errorf("%d healthy, %d allowed, want 3 (p2, p4, p5) and 2", out.status.CurrentHealthy, out.status.DisruptionsAllowed)
	}
	if len(out.overdue) != 1 || out.overdue[0].Name != "p2" || out.recheck != 30*time.Second {
		t.Errorf("overdue %d, look again in %s; want p2 and 30s, when p1 is", len(out.overdue), out.recheck)
	}
}

func TestConditionKeepsItsTransition(t *testing.T) {
	pdb := budget(minAvailable("1"))
	plan := func(pods string, at time.Time) metav1.Condition {
		t.Helper()
		out, err := planStatus(pdb, makePods(pods), tenEach(makePods(pods)), at)
		if err != nil {
			t.Fatal(err)
		}
		pdb.Status = out.status
		return out.status.Conditions[0]
	}
	if c := plan("rs:ready", now); c.Status != metav1.ConditionFalse {
		t.Fatalf("one of one: %+v", c)
	}
	if c := plan("rs:ready rs:unready", now.Add(time.Minute)); !c.LastTransitionTime.Time.Equal(now) {
		t.Errorf("nothing turned, yet the transition is at %s", c.LastTransitionTime)
	}
	if c := plan("rs:ready rs:ready", now.Add(time.Hour)); !c.LastTransitionTime.Time.Equal(now.Add(time.Hour)) || c.Status != metav1.ConditionTrue {
		t.Errorf("one too many: %+v", c)
	}
	pdb.Status.ObservedGeneration = 2
	failed := planFailed(pdb, errors.New("why"), now.Add(2*time.Hour))
	c := failed.Conditions[0]
	if failed.DisruptionsAllowed != 0 || failed.CurrentHealthy != 2 || c.Reason != "SyncFailed" || c.Message != "why" || c.Status != metav1.ConditionFalse || c.ObservedGeneration != 2 {
		t.Errorf("failed: %+v", failed)
	}
	if pdb.Status.DisruptionsAllowed != 1 {
		t.Error("the shared budget was changed")
	}
	pdb.Status = failed
	if c := plan("rs:ready rs:ready", now.Add(3*time.Hour)); c.Reason != "SufficientPods" || c.Message != "" {
		t.Errorf("after the failure: %+v", c)
	}
}
