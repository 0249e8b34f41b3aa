package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	t0     = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	always = corev1.ContainerRestartPolicyAlways
)

// aPod has the containers named; a name that begins with "i" is an init container, with "s" a sidecar.
func aPod(policy corev1.RestartPolicy, names ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: policy}}
	for _, n := range names {
		c := corev1.Container{Name: n, Image: "img"}
		switch n[0] {
		case 'i':
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case 's':
			c.RestartPolicy = &always
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		default:
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	}
	return p
}

// seen builds what the runtime shows from words, newest last: "+" a ready sandbox, "-" a dead one, then its containers as
// NAME=run, NAME=CODE (exited 5 s ago), NAME=new (created), NAME=? (unknown).
func seen(words string) *Observed {
	o := &Observed{}
	at := t0.Add(-time.Hour)
	attempts := map[string]int32{}
	for i, w := range strings.Fields(words) {
		at = at.Add(time.Second)
		if w == "+" || w == "-" {
			o.Sandboxes = append(o.Sandboxes, Sandbox{ID: fmt.Sprint("sb", len(o.Sandboxes)), Attempt: uint32(len(o.Sandboxes)), Ready: w == "+", CreatedAt: at, IPs: []string{"10.0.0.1"}})
			continue
		}
		name, state, _ := strings.Cut(w, "=")
		c := Container{ID: fmt.Sprintf("%s-%d", name, i), Name: name, SandboxID: o.Sandboxes[len(o.Sandboxes)-1].ID, CreatedAt: at, StartedAt: at, Attempt: attempts[name]}
		attempts[name]++
		switch state {
		case "run":
			c.State = Running
		case "new":
			c.State = Created
		case "?":
			c.State = Unknown
		default:
			c.State, c.FinishedAt = Exited, t0.Add(-5*time.Second)
			if _, err := fmt.Sscan(state, &c.ExitCode); err != nil {
				panic(err)
			}
		}
		o.Containers = append(o.Containers, c)
	}
	o.Sort()
	return o
}

// show prints a plan in the order in which things happen.
func show(p Plan) string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if p.Fail != nil {
		add("fail:%s", p.Fail.Reason)
	}
	if p.Sandbox {
		add("sandbox:%d", p.Attempt)
	}
	for _, s := range p.Stop {
		hurry := ""
		if s.Hurry {
			hurry = "!"
		}
		add("stop:%s:%s%s", s.Name, s.Grace, hurry)
	}
	for _, s := range p.Start {
		replace := ""
		if s.Replace != "" {
			replace = "!"
		}
		add("start:%s:%d%s", s.Name, s.Attempt, replace)
	}
	for _, id := range p.Prune {
		add("prune:%s", id)
	}
	for _, id := range p.PruneSandboxes {
		add("prune:%s", id)
	}
	for n, w := range p.Waiting {
		add("wait:%s:%s", n, w.Reason)
	}
	if p.Teardown {
		add("teardown")
	}
	if p.Remove {
		add("remove")
	}
	if p.Finish {
		add("finish")
	}
	if !p.Wake.IsZero() {
		add("wake:%s", p.Wake.Sub(t0))
	}
	return strings.Join(out, " ")
}

func TestDecide(t *testing.T) {
	const A, F, N = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	deleted := func(in *Input) { in.Pod.DeletionTimestamp = &metav1.Time{Time: t0} }
	isReady := func(in *Input) {
		in.Pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	since := func(d time.Duration) func(*Input) {
		return func(in *Input) { in.Memory.Terminating = t0.Add(-d) }
	}
	unhealthy := func(id, probe string) func(*Input) {
		return func(in *Input) { in.Health = map[string]Health{id: {Started: true, Ready: true, Failed: probe}} }
	}
	starting := func(id string) func(*Input) {
		return func(in *Input) { in.Health = map[string]Health{id: {}} }
	}
	crashes := func(name string, d time.Duration) func(*Input) {
		return func(in *Input) { in.Memory.Container(name).Crash = Backoff{Delay: d, Since: t0.Add(-20 * time.Second)} }
	}
	for _, tc := range []struct {
		name       string
		pod        *corev1.Pod
		seen, want string
		with       []func(*Input)
	}{
		{"new pod", aPod(A, "a"), "", "sandbox:0", nil},
		{"sandbox is being made", aPod(A, "a"), "", "", []func(*Input){func(in *Input) { in.Busy.Sandbox = true }}},
		{"containers in order", aPod(A, "a", "b"), "+", "start:a:0 start:b:0", nil},
		{"one missing", aPod(A, "a", "b"), "+ a=run", "start:b:0", nil},
		{"all run", aPod(A, "a", "b"), "+ a=run b=run", "", nil},
		{"already starting", aPod(A, "a"), "+", "", []func(*Input){func(in *Input) { in.Busy.Start = true }}},
		{"created and left by a dead agent", aPod(A, "a"), "+ a=new", "start:a:0!", nil},
		{"init before containers", aPod(A, "i1", "i2", "a"), "+", "start:i1:0", nil},
		{"init runs", aPod(A, "i1", "i2", "a"), "+ i1=run", "", nil},
		{"second init", aPod(A, "i1", "i2", "a"), "+ i1=0", "start:i2:0", nil},
		{"inits done", aPod(A, "i1", "i2", "a"), "+ i1=0 i2=0", "start:a:0", nil},
		{"init fails and is tried again", aPod(A, "i1", "a"), "+ i1=1", "start:i1:1", nil},
		{"init fails for good", aPod(N, "i1", "a"), "+ i1=1", "teardown", nil},
		{"sidecar first", aPod(A, "s", "a"), "+", "start:s:0", nil},
		{"sidecar not started yet", aPod(A, "s", "a"), "+ s=run", "", []func(*Input){starting("s-1")}},
		{"sidecar started", aPod(A, "s", "a"), "+ s=run", "start:a:0", nil},
		{"sidecar ends beside containers", aPod(A, "s", "a"), "+ s=0 a=run", "start:s:1", nil},
		{"sidecar ends in a job", aPod(N, "s", "a"), "+ s=1 a=run", "start:s:1", nil},
		{"always: exit 0 restarts", aPod(A, "a"), "+ a=0", "start:a:1", nil},
		{"on failure: exit 1 restarts", aPod(F, "a"), "+ a=1", "start:a:1", nil},
		{"on failure: exit 0 ends", aPod(F, "a"), "+ a=0", "teardown", nil},
		{"never: one still runs", aPod(N, "a", "b"), "+ a=1 b=run", "", nil},
		{"never: all ended", aPod(N, "a", "b"), "+ a=1 b=0", "teardown", nil},
		{"job ends with a sidecar", aPod(N, "s1", "s2", "a"), "+ s1=run s2=run a=0", "stop:s2:30s", nil},
		{"and the first sidecar last", aPod(N, "s1", "s2", "a"), "+ s1=run s2=0 a=0", "stop:s1:30s", nil},
		{"crash loop", aPod(A, "a"), "+ a=1", "wait:a:CrashLoopBackOff wake:15s", []func(*Input){crashes("a", 20*time.Second)}},
		{"crash loop is over", aPod(A, "a"), "+ a=1", "start:a:1", []func(*Input){crashes("a", 5*time.Second)}},
		{"liveness fails", aPod(A, "a"), "+ a=run", "stop:a:30s", []func(*Input){unhealthy("a-1", "liveness")}},
		{"liveness fails, being stopped", aPod(A, "a"), "+ a=run", "", []func(*Input){unhealthy("a-1", "liveness"),
			func(in *Input) { in.Busy.Stopping = map[string]time.Time{"a-1": t0.Add(29 * time.Second)} }}},
		{"unknown state", aPod(A, "a"), "+ a=?", "stop:a:30s", nil},
		{"sandbox died", aPod(A, "a"), "- a=run", "stop:a:30s", nil},
		{"sandbox died, containers too", aPod(A, "a"), "- a=137", "sandbox:1", nil},
		{"new sandbox runs inits again", aPod(A, "i", "a"), "- i=0 a=137 +", "start:i:1", nil},
		{"new sandbox, inits done again", aPod(A, "i", "a"), "- i=0 a=137 + i=0", "start:a:1", nil},
		{"two sandboxes live", aPod(A, "a"), "+ + a=run", "stop:a:30s", nil},
		{"dead runs go, one is kept", aPod(A, "a"), "+ a=1 a=1 a=1 a=run", "prune:a-2 prune:a-1", nil},
		{"dead sandbox goes with its last container", aPod(A, "a"), "- + a=run", "prune:sb0", nil},
		{"pull back-off", aPod(A, "a"), "+", "wait:a:ImagePullBackOff wake:5s", []func(*Input){func(in *Input) {
			*in.Memory.Container("a") = ContainerMemory{Waiting: Waiting{Reason: ReasonErrImagePull}, Failed: t0.Add(-5 * time.Second), RetryAt: t0.Add(5 * time.Second)}
		}}},
		{"pull just failed", aPod(A, "a"), "+", "wait:a:ErrImagePull wake:3s", []func(*Input){func(in *Input) {
			*in.Memory.Container("a") = ContainerMemory{Waiting: Waiting{Reason: ReasonErrImagePull}, Failed: t0, RetryAt: t0.Add(10 * time.Second)}
		}}},
		{"sandbox retry", aPod(A, "a"), "", "wake:2s", []func(*Input){func(in *Input) { in.Memory.SandboxRetryAt = t0.Add(2 * time.Second) }}},
		{"deadline ahead", aPod(A, "a"), "+ a=run", "wake:50s", []func(*Input){func(in *Input) { in.Pod.Spec.ActiveDeadlineSeconds = ptr(int64(60)) }}},
		{"deadline passed", aPod(A, "a"), "+ a=run", "fail:DeadlineExceeded stop:a:30s", []func(*Input){func(in *Input) { in.Pod.Spec.ActiveDeadlineSeconds = ptr(int64(9)) }}},
		{"refused", aPod(A, "a"), "", "teardown", []func(*Input){func(in *Input) { in.Memory.Failure = &Failure{} }}},
		{"deleted", aPod(A, "s", "a", "b"), "+ s=run a=run b=run", "stop:b:30s stop:a:30s", []func(*Input){deleted}},
		{"deleted, Ready: serves a moment longer", aPod(A, "a"), "+ a=run", "wake:300ms", []func(*Input){deleted, isReady}},
		{"deleted, Ready: a moment later", aPod(A, "a"), "+ a=run", "stop:a:29.7s", []func(*Input){deleted, isReady, since(300 * time.Millisecond)}},
		{"deleted, Ready, one container has ended", aPod(A, "a", "b"), "+ a=run b=0", "stop:a:30s", []func(*Input){deleted, isReady}},
		{"deleted, Ready, with a preStop hook", aPod(A, "a"), "+ a=run", "stop:a:30s", []func(*Input){deleted, isReady, func(in *Input) {
			in.Pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}}}
		}}},
		{"deleted with a second of grace, Ready", aPod(A, "a"), "+ a=run", "stop:a:1s", []func(*Input){deleted, isReady, func(in *Input) {
			in.Pod.DeletionGracePeriodSeconds = ptr(int64(1))
		}}},
		{"deleted, sidecar gets what is left", aPod(A, "s", "a"), "+ s=run a=0", "stop:s:10s", []func(*Input){deleted, since(20 * time.Second)}},
		{"deleted, sidecar gets two seconds at least", aPod(A, "s", "a"), "+ s=run a=0", "stop:s:2s", []func(*Input){deleted, since(time.Minute)}},
		{"deleted, stopping", aPod(A, "a"), "+ a=run", "", []func(*Input){deleted, since(5 * time.Second),
			func(in *Input) { in.Busy.Stopping = map[string]time.Time{"a-1": t0.Add(25 * time.Second)} }}},
		{"deleted, now with less time", aPod(A, "a"), "+ a=run", "stop:a:1s!", []func(*Input){deleted, since(5 * time.Second), func(in *Input) {
			in.Pod.DeletionGracePeriodSeconds = ptr(int64(2))
			in.Busy.Stopping = map[string]time.Time{"a-1": t0.Add(25 * time.Second)}
		}}},
		{"removed by force", aPod(A, "a"), "+ a=run", "stop:a:2s", []func(*Input){func(in *Input) { in.Memory.Gone = true }}},
		{"deleted while starting", aPod(A, "a"), "+", "", []func(*Input){deleted, func(in *Input) { in.Busy.Start = true }}},
		{"deleted, all stopped", aPod(A, "a"), "+ a=0", "teardown", []func(*Input){deleted}},
		{"deleted, torn down", aPod(A, "a"), "- a=0", "remove", []func(*Input){deleted, func(in *Input) { in.Memory.TornDown = true }}},
		{"deleted, removed", aPod(A, "a"), "", "finish", []func(*Input){deleted, func(in *Input) { in.Memory.TornDown, in.Memory.Removed = true, true }}},
		{"finished, torn down: containers stay for their logs", aPod(N, "a"), "- a=0", "finish", []func(*Input){func(in *Input) { in.Memory.TornDown = true }}},
		{"ended according to the API", aPod(A, "a"), "", "teardown", []func(*Input){func(in *Input) { in.Pod.Status.Phase = corev1.PodFailed }}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := Input{Pod: tc.pod, Observed: seen(tc.seen), Memory: &Memory{StartTime: t0.Add(-10 * time.Second)}, Now: t0}
			for _, f := range tc.with {
				f(&in)
			}
			got := show(Decide(in))
			if got != tc.want {
				t.Errorf("%s:\n got %q\nwant %q", tc.seen, got, tc.want)
			}
			if again := show(Decide(in)); again != got {
				t.Errorf("decided again: %q, then %q", got, again)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestRestartRules(t *testing.T) {
	pod := aPod(corev1.RestartPolicyNever, "a")
	c := &pod.Spec.Containers[0]
	c.RestartPolicy = ptr(corev1.ContainerRestartPolicyNever)
	c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
	for code, want := range map[int32]bool{0: false, 1: false, 42: true} {
		if got := restarts(pod, c, false, code); got != want {
			t.Errorf("exit %d: restart %v", code, got)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b Backoff
	at := t0
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		b = b.Next(at, at)
		if b.Delay != want*time.Second {
			t.Fatalf("delay %s, want %ds", b.Delay, want)
		}
		at = at.Add(b.Delay + time.Second)
	}
	if b = b.Next(at.Add(11*time.Minute), at.Add(11*time.Minute)); b.Delay != 10*time.Second {
		t.Errorf("after a quiet time: %s", b.Delay)
	}
}
