package rollout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	spec "github.com/knarr-io/knarr/internal/api/rollout"
)

func strategy(t *testing.T, text string) *spec.Strategy {
	t.Helper()
	s, err := spec.StrategyIn(map[string]string{spec.How: text})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const steps = `{strategy: canary, steps: [{weight: 20}, {pause: 1m}, {job: smoke}, {weight: 50}, {pause: untilPromoted}]`

// run is a roll-out of which every pod is available as soon as it is asked for.
type run struct {
	v   View
	st  State
	now time.Time
	out Decision
}

func begin(t *testing.T, text string) *run {
	now := time.Unix(1000, 0)
	return &run{now: now, st: Begin(0, 0, now), v: View{Strategy: strategy(t, text), Replicas: 10, Deadline: 10 * time.Minute, Stable: Pods{10, 10}, OthersGone: true}}
}

// look decides once; look until nothing moves with settle.
func (r *run) look() { r.out = Next(r.v, r.st, r.now); r.st = r.out.State }

func (r *run) settle() string {
	for range 20 {
		r.look()
		r.v.New = Pods{r.out.New, r.out.New}
		r.v.Stable = Pods{r.out.Stable, r.out.Stable}
	}
	return fmt.Sprintf("%s %d %d/%d", r.st.Phase, r.st.Step, r.v.New.Size, r.v.Stable.Size)
}

func (r *run) want(t *testing.T, what, want string) {
	t.Helper()
	if got := r.settle(); got != want {
		t.Fatalf("%s: %s (%s), want %s", what, got, r.out.Message, want)
	}
}

func TestStepsInTheirOrder(t *testing.T) {
	r := begin(t, steps+"}")
	r.look()
	if r.out.New != 2 || r.out.Stable != 8 || !strings.Contains(r.out.Message, "step 1 of 5 (weight: 20): 0 of 2 new pods") || r.out.Paused {
		t.Fatalf("at first %+v", r.out)
	}
	r.want(t, "with its pods", "UnderWay 1 2/8")
	if !r.out.Paused || r.out.After != 61*time.Second || !strings.Contains(r.out.Message, "waits until 1970-01-01T00:17:40Z") {
		t.Errorf("in the pause %+v", r.out)
	}
	r.now = r.now.Add(59 * time.Second)
	r.want(t, "before the pause ends", "UnderWay 1 2/8")
	r.now = r.now.Add(time.Second)
	r.want(t, "after the pause", "UnderWay 2 2/8")
	if !r.out.RunJob {
		t.Error("no Job is made")
	}
	r.v.Job = Job{Step: 2, Exists: true}
	r.want(t, "with a Job that runs", "UnderWay 2 2/8")
	if r.out.RunJob || !strings.Contains(r.out.Message, "waits for its Job") {
		t.Errorf("with a Job that runs %+v", r.out)
	}
	r.v.Job.Complete = true
	r.want(t, "with a Job that succeeded", "UnderWay 4 5/5")
	r.now = r.now.Add(24 * time.Hour)
	r.want(t, "a day later", "UnderWay 4 5/5")
	r.v.Action = spec.Promote
	r.want(t, "promoted", "Promoted 5 10/0")
}

func TestAJobOfAnotherStepCountsForNothing(t *testing.T) {
	r := begin(t, "{strategy: canary, steps: [{job: a}, {job: b}]}")
	r.v.Job = Job{Step: 0, Exists: true, Complete: true}
	r.want(t, "after the first Job", "UnderWay 1 0/10")
	if !r.out.RunJob {
		t.Error("the second Job is not made")
	}
	r.v.Job = Job{Step: 1, Attempt: 1, Exists: true, Complete: true}
	r.want(t, "with a Job of another attempt", "UnderWay 1 0/10")
	r.v.Job = Job{Step: 1, Exists: true, Failed: true, Message: "BackoffLimitExceeded"}
	r.want(t, "with a Job that failed", "RolledBack 1 0/10")
	if r.st.Reason != "the Job of job: b failed: BackoffLimitExceeded" {
		t.Errorf("because %s", r.st.Reason)
	}
}

func TestActionsAreDoneOnce(t *testing.T) {
	r := begin(t, "{strategy: canary, steps: [{weight: 10}, {pause: untilPromoted}, {pause: untilPromoted}]}")
	r.want(t, "at first", "UnderWay 1 1/9")
	r.v.Action = spec.Promote
	r.want(t, "looked at often before it is taken away", "UnderWay 2 1/9")
	if r.st.Done != spec.Promote {
		t.Errorf("done %q", r.st.Done)
	}
	r.v.Action = ""
	r.want(t, "taken away", "UnderWay 2 1/9")
	if r.st.Done != "" {
		t.Errorf("done %q", r.st.Done)
	}
	r.v.Action = spec.Abort
	r.want(t, "aborted", "RolledBack 2 0/10")
	r.v.Action = spec.Promote
	r.look()
	if r.st.Phase != RolledBack || len(r.out.Warnings) != 1 {
		t.Errorf("promoted after that: %+v", r.out)
	}
	r.v.Action = spec.Retry
	r.want(t, "tried again", "UnderWay 1 1/9")
	if r.st.Attempt != 1 {
		t.Errorf("attempt %d", r.st.Attempt)
	}
	r.v.Action = spec.PromoteFull
	r.want(t, "promoted in full", "Promoted 3 10/0")
}

func TestABrokenStableRevisionIsReplaced(t *testing.T) {
	r := begin(t, "{strategy: canary, steps: [{weight: 20}, {weight: 50}, {pause: 1m}]}")
	for range 10 {
		r.look()
		r.v.New = Pods{r.out.New, r.out.New}
		r.v.Stable = Pods{Size: 10} // neither available nor made fewer
	}
	if r.st.Step != 2 || !r.out.Paused {
		t.Fatalf("beside a broken stable revision: step %d, %s", r.st.Step, r.out.Message)
	}
	r.now = r.now.Add(time.Minute)
	r.want(t, "at the end", "Promoted 3 10/0")
}

func TestPodsThatDoNotCome(t *testing.T) {
	r := begin(t, steps+"}")
	r.v.New = Pods{2, 0}
	r.look()
	r.now = r.now.Add(9 * time.Minute)
	r.v.New = Pods{2, 1} // the deadline begins again with each pod
	r.look()
	r.now = r.now.Add(9 * time.Minute)
	r.look()
	if r.st.Phase != UnderWay || r.out.After != time.Minute+time.Second {
		t.Fatalf("before the deadline %+v", r.out)
	}
	r.now = r.now.Add(2 * time.Minute)
	r.look()
	if r.st.Phase != RolledBack || !strings.Contains(r.st.Reason, "1 of 2 new pods are available, for longer than progressDeadlineSeconds (10m0s)") || len(r.out.Warnings) != 1 {
		t.Errorf("after the deadline %+v", r.out)
	}
}

func TestAPausedDeploymentStandsStill(t *testing.T) {
	r := begin(t, steps+"}")
	r.v.New = Pods{2, 0}
	r.look()
	r.v.Frozen, r.v.Action = true, spec.Abort
	r.now = r.now.Add(time.Hour)
	r.look()
	if r.st.Phase != UnderWay || r.out.New != 2 || !r.out.Paused || r.st.Ill != nil || !strings.Contains(r.out.Message, "the Deployment is paused") {
		t.Fatalf("paused: %+v", r.out)
	}
	r.v.Frozen, r.v.Action = false, ""
	if r.look(); r.st.Phase != UnderWay {
		t.Errorf("the time of the pause counts: %+v", r.st)
	}
}

func TestPodsThatAreLostInAPause(t *testing.T) {
	r := begin(t, steps+", onFailure: hold}")
	r.want(t, "at first", "UnderWay 1 2/8")
	r.v.New.Available = 1
	r.now = r.now.Add(2 * time.Minute)
	r.look()
	if r.st.Step != 1 || r.out.Paused {
		t.Fatalf("a pause ended without its pods: %+v", r.out)
	}
	r.now = r.now.Add(11 * time.Minute)
	r.look()
	if r.st.Phase != Held || !r.out.Paused || r.out.New != 2 || !strings.HasPrefix(r.out.Message, "Held at step 2 of 5 (pause: 1m): 1 of 2") {
		t.Fatalf("after the deadline %+v", r.out)
	}
	r.v.Action = spec.Promote
	r.want(t, "going on", "UnderWay 1 2/8")
	r.now = r.now.Add(time.Minute)
	r.want(t, "after the pause", "UnderWay 2 2/8")
}

func TestChecks(t *testing.T) {
	r := begin(t, "{strategy: canary, steps: [{weight: 20}, {pause: 10s}], checks: [{source: restarts, max: 0}, {source: cpu, min: 10m, for: 30s}]}")
	read := func(restarts, cpu string) {
		r.v.Readings = []Reading{{Value: resource.MustParse(restarts)}, {Value: resource.MustParse(cpu)}}
	}
	r.look()
	if r.out.Read {
		t.Error("figures are wanted of no pods")
	}
	r.want(t, "without figures", "UnderWay 0 2/8")
	if !r.out.Read || r.out.After != lookAgain {
		t.Errorf("no figures are asked for: %+v", r.out)
	}
	read("0", "5m")
	r.now = r.now.Add(20 * time.Second)
	r.want(t, "out of bounds for a moment", "UnderWay 0 2/8")
	read("0", "10m")
	r.now = r.now.Add(20 * time.Second)
	r.want(t, "within bounds", "UnderWay 1 2/8")
	if r.st.Failing != nil {
		t.Errorf("still failing: %v", r.st.Failing)
	}
	r.v.Readings = []Reading{{}, {Err: errors.New("no metrics")}}
	r.now = r.now.Add(20 * time.Second)
	r.want(t, "without a figure", "UnderWay 1 2/8")
	if !strings.Contains(r.out.Message, "the check of cpu cannot be made: no metrics") {
		t.Errorf("message %s", r.out.Message)
	}
	read("1", "10m")
	r.look()
	r.now = r.now.Add(15 * time.Second)
	r.look()
	if r.st.Phase != RolledBack || r.st.Reason != "restarts is 1, more than 0" {
		t.Errorf("after a restart %+v", r.st)
	}
	r = begin(t, "{strategy: canary, steps: [{weight: 20}], checks: [{source: cpu, max: 1}]}")
	r.v.New, r.v.Readings = Pods{2, 2}, []Reading{{Err: errors.New("no metrics")}}
	r.look()
	r.now = r.now.Add(11 * time.Minute)
	if r.look(); r.st.Phase != RolledBack {
		t.Errorf("a figure that can never be read: %+v", r.out)
	}
}

func TestAJobThatCannotBeMade(t *testing.T) {
	r := begin(t, "{strategy: canary, steps: [{job: smoke}]}")
	r.v.Job.Err = errors.New("there is no Job smoke")
	r.look()
	if !strings.Contains(r.out.Message, "there is no Job smoke") || !r.out.RunJob || r.out.After != lookAgain {
		t.Fatalf("%+v", r.out)
	}
	r.now = r.now.Add(11 * time.Minute)
	if r.look(); r.st.Phase != RolledBack {
		t.Errorf("after the deadline %+v", r.out)
	}
}

func TestBlueGreen(t *testing.T) {
	r := begin(t, "{strategy: blueGreen, steps: [{pause: untilPromoted}], keepOld: 1m}")
	r.want(t, "at first", "UnderWay 0 10/10")
	if !r.out.OffNew || r.out.OffStable {
		t.Errorf("Services reach the new pods: %+v", r.out)
	}
	r.v.Action = spec.Promote
	r.want(t, "promoted", "UnderWay 1 10/10")
	if r.out.OffNew || !r.out.OffStable || r.out.After != 61*time.Second {
		t.Errorf("after the switch %+v", r.out)
	}
	back := *r
	back.v.Action = spec.Abort
	back.look()
	if !back.out.OffNew || back.out.OffStable || back.out.New != 0 {
		t.Errorf("aborted after the switch: %+v", back.out)
	}
	r.now = r.now.Add(time.Minute)
	r.want(t, "when the old ones have been kept", "Promoted 1 10/0")
	if r.out.OffNew || r.out.OffStable {
		t.Errorf("at the end %+v", r.out)
	}
}

func TestShares(t *testing.T) {
	for _, tc := range [][4]int32{{10, 20, 2, 8}, {10, 1, 1, 9}, {10, 99, 9, 1}, {10, 100, 10, 0}, {10, 0, 0, 10}, {3, 50, 2, 1}, {2, 1, 1, 1}, {1, 20, 1, 1}, {1, 100, 1, 0}, {0, 50, 0, 0}, {1 << 30, 50, 1 << 29, 1 << 29}} {
		if fresh, stable := share(tc[0], tc[1]); fresh != tc[2] || stable != tc[3] {
			t.Errorf("%d%% of %d is %d and %d, want %d and %d", tc[1], tc[0], fresh, stable, tc[2], tc[3])
		}
	}
}

func TestMoves(t *testing.T) {
	set := func(size, available, target int32) Set { return Set{Pods{size, available}, target} }
	for _, tc := range []struct {
		name string
		b    Bounds
		sets []Set
		want string
	}{
		{"the new one grows first", Bounds{10, 3, 2}, []Set{set(0, 0, 2), set(10, 10, 8)}, "[2 10]"},
		{"then the stable one shrinks to what is available beside it", Bounds{10, 3, 0}, []Set{set(2, 1, 2), set(10, 10, 8)}, "[2 9]"},
		{"without a surge it makes room first", Bounds{10, 0, 1}, []Set{set(0, 0, 2), set(10, 10, 8)}, "[0 9]"},
		{"no more than the surge", Bounds{10, 1, 0}, []Set{set(0, 0, 5), set(10, 10, 5)}, "[1 10]"},
		{"what is not available makes room", Bounds{5, 0, 1}, []Set{set(0, 0, 1), set(5, 0, 4)}, "[0 4]"},
		{"and does so beside a broken one that stays", Bounds{5, 0, 1}, []Set{set(0, 0, 1), set(4, 0, 4), set(1, 0, 0)}, "[0 4 0]"},
		{"available pods stay when others have failed", Bounds{5, 0, 1}, []Set{set(2, 2, 0), set(3, 0, 5)}, "[2 3]"},
		{"of one replica a canary is a second pod", Bounds{1, 0, 1}, []Set{set(0, 0, 1), set(1, 1, 1)}, "[1 1]"},
		{"all new ones beside all old ones", Bounds{4, 1, 0}, []Set{set(0, 0, 4), set(4, 4, 4)}, "[4 4]"},
		{"scaled down", Bounds{2, 1, 0}, []Set{set(2, 2, 1), set(8, 8, 1)}, "[1 1]"},
		{"scaled up", Bounds{20, 5, 5}, []Set{set(2, 2, 4), set(8, 8, 16)}, "[4 16]"},
		{"further ones go first", Bounds{4, 1, 0}, []Set{set(1, 1, 1), set(3, 3, 3), set(1, 1, 0)}, "[1 3 0]"},
		{"there already", Bounds{4, 1, 0}, []Set{set(1, 1, 1), set(3, 3, 3)}, "[1 3]"},
	} {
		if got := fmt.Sprint(Move(tc.b, tc.sets)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
