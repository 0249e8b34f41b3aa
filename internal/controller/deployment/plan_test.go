package deployment

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// deployment returns one of n replicas; surge and unavailable are numbers or percentages.
func deployment(n int32, surge, unavailable string) *appsv1.Deployment {
	s, u := intstr.Parse(surge), intstr.Parse(unavailable)
	deadline, limit := int32(600), int32(10)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "d", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: ct.Selector("web"), Template: ct.Template("web", "v2"),
			ProgressDeadlineSeconds: &deadline, RevisionHistoryLimit: &limit,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u},
			},
		},
	}
}

// sized describes a ReplicaSet of d: image, size, available pods, and the Deployment size and maximum it was sized for.
func sized(d *appsv1.Deployment, age int, image string, size, available, desired, most int32) *appsv1.ReplicaSet {
	t := ct.Template("web", image)
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: fmt.Sprintf("%s-%d", image, age), UID: types.UID(fmt.Sprintf("%s-%d", image, age)),
			CreationTimestamp: metav1.NewTime(time.Unix(int64(1000-age), 0)),
			Annotations:       map[string]string{desiredAnnotation: fmt.Sprint(desired), maxAnnotation: fmt.Sprint(most)},
		},
		Spec:   appsv1.ReplicaSetSpec{Replicas: &size, Template: t},
		Status: appsv1.ReplicaSetStatus{Replicas: size, AvailableReplicas: available, ReadyReplicas: available, ObservedGeneration: 1},
	}
}

// sizes writes the decided sizes as NAME=SIZE, changed ones only.
func sizes(act actions) string {
	var out []string
	if act.create != nil {
		out = append(out, fmt.Sprintf("new=%d", *act.create.Spec.Replicas))
	}
	for _, u := range act.update {
		if *u.old.Spec.Replicas != *u.new.Spec.Replicas {
			out = append(out, fmt.Sprintf("%s=%d", u.old.Name, *u.new.Spec.Replicas))
		}
	}
	return strings.Join(out, " ")
}

func TestRolling(t *testing.T) {
	for _, tc := range []struct {
		name               string
		n                  int32
		surge, unavailable string
		sets               func(d *appsv1.Deployment) []*appsv1.ReplicaSet
		want               string
	}{
		{"first rollout", 10, "25%", "25%", func(d *appsv1.Deployment) []*appsv1.ReplicaSet { return nil }, "new=10"},
		{"begins with the surge and takes what may be unavailable", 10, "3", "2", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 10, 10, 10, 13)}
		}, "new=3 v1-9=8"},
		{"grows into what the old one left", 10, "3", "2", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 8, 8, 10, 13), sized(d, 1, "v2", 3, 0, 10, 13)}
		}, "v2-1=5"},
		{"waits for the new pods", 10, "3", "2", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 8, 8, 10, 13), sized(d, 1, "v2", 5, 0, 10, 13)}
		}, ""},
		{"takes an old pod for each available new one", 10, "3", "2", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 8, 8, 10, 13), sized(d, 1, "v2", 5, 4, 10, 13)}
		}, "v1-9=4"},
		{"takes unhealthy old pods first", 10, "0", "2", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v0", 5, 5, 10, 10), sized(d, 5, "v1", 5, 3, 10, 10), sized(d, 1, "v2", 0, 0, 10, 10)}
		}, "v1-5=3"},
		{"an old set that was just made smaller has no more available pods than it is to keep", 4, "1", "1", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 2, 3, 4, 5), sized(d, 1, "v2", 3, 2, 4, 5)}
		}, "v1-9=1"},
		{"a crash-looping new set does not let an old one shrink when a node fails", 10, "3", "2", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 8, 7, 10, 13), sized(d, 1, "v2", 5, 0, 10, 13)}
		}, ""},
		{"rolling over: the middle one goes first, the third starts empty", 10, "3", "2", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v0", 8, 8, 10, 13), sized(d, 5, "v1", 5, 0, 10, 13)}
		}, "new=0 v1-5=0"},
		{"no surge, one percent unavailable of two is one", 2, "0%", "1%", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 2, 2, 2, 2)}
		}, "new=0 v1-9=1"},
		{"one percent of surge of two is one", 2, "1%", "0%", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 2, 2, 2, 3)}
		}, "new=1"},
		{"a new set that is too large shrinks", 3, "1", "0", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			s := sized(d, 1, "v2", 5, 5, 3, 4)
			return []*appsv1.ReplicaSet{s}
		}, "v2-1=3"},
		{"done", 3, "1", "0", func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 0, 0, 3, 4), sized(d, 1, "v2", 3, 3, 3, 4)}
		}, ""},
	} {
		d := deployment(tc.n, tc.surge, tc.unavailable)
		act := plan(d, observed{replicaSets: tc.sets(d)}, time.Unix(2000, 0))
		if got := sizes(act); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// Scaling in the middle of a rollout keeps the proportions of the ReplicaSets; the cases are those of the documentation and of
// proportions that do not divide.
func TestScaling(t *testing.T) {
	for _, tc := range []struct {
		name string
		n    int32
		sets func(d *appsv1.Deployment) []*appsv1.ReplicaSet
		want string
	}{
		{"the documentation's example: 10 to 15 with 8 old and 5 new", 15, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 8, 8, 10, 13), sized(d, 1, "v2", 5, 0, 10, 13)}
		}, "v1-9=11 v2-1=7"},
		{"only one active set takes all", 7, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 0, 0, 5, 8), sized(d, 1, "v2", 5, 5, 5, 8)}
		}, "v2-1=7"},
		{"down to nothing", 0, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 8, 8, 10, 13), sized(d, 1, "v2", 5, 0, 10, 13)}
		}, "v1-9=0 v2-1=0"},
		{"down by half", 5, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 8, 8, 10, 13), sized(d, 1, "v2", 5, 0, 10, 13)}
		}, "v1-9=5 v2-1=3"},
		{"equal sets: the newer grows first", 12, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{sized(d, 9, "v1", 5, 5, 10, 10), sized(d, 1, "v2", 5, 5, 10, 10)}
		}, "v1-9=7 v2-1=8"},
	} {
		d := deployment(tc.n, "3", "2")
		d.Status.Replicas = 13
		act := plan(d, observed{replicaSets: tc.sets(d)}, time.Unix(2000, 0))
		if got := sizes(act); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		for _, u := range act.update {
			if *u.new.Spec.Replicas > 0 && u.new.Annotations[desiredAnnotation] != fmt.Sprint(tc.n) {
				t.Errorf("%s: %s is annotated for %s", tc.name, u.new.Name, u.new.Annotations[desiredAnnotation])
			}
		}
	}
}

func TestRecreate(t *testing.T) {
	now := time.Unix(2000, 0)
	d := deployment(3, "0", "1")
	d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	old := sized(d, 9, "v1", 3, 3, 3, 3)
	check := func(what string, running bool, want string) {
		t.Helper()
		act := plan(d, observed{replicaSets: []*appsv1.ReplicaSet{old}, running: map[types.UID]bool{old.UID: running}}, now)
		if got := sizes(act); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("old pods", true, "v1-9=0")
	none := int32(0)
	old.Spec.Replicas = &none
	check("old pods still counted", false, "")
	old.Status.Replicas = 0
	check("old pods still stopping", true, "")
	check("old pods gone", false, "new=3")
}

func TestBounds(t *testing.T) {
	for _, tc := range []struct {
		n                          int32
		surge, unavailable         string
		wantSurge, wantUnavailable int32
	}{
		{10, "25%", "25%", 3, 2},
		{1, "25%", "25%", 1, 0},
		{4, "0", "0%", 0, 1},
		{3, "0", "100%", 0, 3},
		{3, "1", "10", 1, 3},
		{0, "25%", "25%", 0, 0},
		{3, "2147483647", "0", math.MaxInt32 - 3, 0}, // with the replicas still a number of pods
		{3, "300000000000%", "0", math.MaxInt32 - 3, 0},
	} {
		s, u := bounds(deployment(tc.n, tc.surge, tc.unavailable))
		if s != tc.wantSurge || u != tc.wantUnavailable {
			t.Errorf("%d replicas, surge %s, unavailable %s: %d and %d, want %d and %d", tc.n, tc.surge, tc.unavailable, s, u, tc.wantSurge, tc.wantUnavailable)
		}
	}
}

func TestHistory(t *testing.T) {
	if got := addHistory("", "1"); got != "1" {
		t.Errorf("first: %q", got)
	}
	if got := addHistory("1,3", "5"); got != "1,3,5" {
		t.Errorf("third: %q", got)
	}
	long := strings.Repeat("1000000000,", 181) + "7" // 1,992 characters
	got := addHistory(long, "1234567890")
	if len(got) > maxHistory || !strings.HasSuffix(got, ",7,1234567890") {
		t.Errorf("long: %d characters ending in %s", len(got), got[len(got)-14:])
	}
}

func TestProgressDeadline(t *testing.T) {
	start := time.Unix(10000, 0)
	d := deployment(2, "1", "0")
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 3, UpdatedReplicas: 1, AvailableReplicas: 2, ReadyReplicas: 2,
		Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: reasonUpdated,
			LastUpdateTime: metav1.NewTime(start), LastTransitionTime: metav1.NewTime(start)}}}
	sets := []*appsv1.ReplicaSet{sized(d, 9, "v1", 2, 2, 2, 3), sized(d, 1, "v2", 1, 0, 2, 3)}
	at := func(d0 time.Duration) actions {
		return plan(d, observed{replicaSets: sets}, start.Add(d0))
	}
	act := at(9 * time.Minute)
	if c := conditionOf(&act.status, appsv1.DeploymentProgressing); c.Reason != reasonUpdated || act.after != time.Minute+time.Second {
		t.Errorf("before the deadline: %s, again after %v", c.Reason, act.after)
	}
	act = at(10*time.Minute + time.Second)
	c := conditionOf(&act.status, appsv1.DeploymentProgressing)
	if c.Reason != reasonTimedOut || c.Status != corev1.ConditionFalse || act.after != 0 {
		t.Errorf("after the deadline: %+v, again after %v", c, act.after)
	}
	d.Spec.Paused = true
	act = at(11 * time.Minute)
	if c := conditionOf(&act.status, appsv1.DeploymentProgressing); c.Reason != reasonPaused || c.Status != corev1.ConditionUnknown {
		t.Errorf("paused: %+v", c)
	}
}
