package lifecycle

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// restartAll gives a container a rule by which exit code 42 restarts all containers of its pod.
func restartAll(c *corev1.Container) {
	c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
}

func conditionOf(s corev1.PodStatus, t corev1.PodConditionType) corev1.ConditionStatus {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return s.Conditions[i].Status
		}
	}
	return ""
}

// The pod stays Running and initialized while its init containers run again, says that it restarts until it does, and counts each run.
func TestStatusWhileAllContainersRestart(t *testing.T) {
	pod := aPod(corev1.RestartPolicyNever, "i", "a", "b")
	restartAll(&pod.Spec.Containers[0])
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}}
	for _, tc := range []struct {
		seen, want string
		begun      bool // a run of the new round is there
	}{
		{"+ i=0 a=run b=run", "Running False i=Completed0+ a=run+ b=run+", false},
		{"+ i=0 a=42 b=run", "Running True i=RestartingAllContainers<0 a=RestartingAllContainers<42 b=run+", false},
		{"+ i=0 a=42 b=137", "Running True i=RestartingAllContainers<0 a=RestartingAllContainers<42 b=RestartingAllContainers<137", false},
		{"+ i=0 a=42 b=137 i=run", "Running False i=run*1<0 a=RestartingAllContainers<42 b=RestartingAllContainers<137", true},
	} {
		in := Input{Pod: pod, Observed: seen(tc.seen), Memory: &Memory{StartTime: t0}, Now: t0}
		if tc.begun {
			in.Observed.Containers[0].Round = 1
		}
		p := Decide(in)
		s := Status(in, p.Waiting)
		got := string(s.Phase) + " " + string(conditionOf(s, corev1.AllContainersRestarting)) + " " + sayContainers(s)
		if got != tc.want {
			t.Errorf("%s:\n got %q\nwant %q", tc.seen, got, tc.want)
		}
		if conditionOf(s, corev1.PodInitialized) != corev1.ConditionTrue {
			t.Errorf("%s: the pod is no longer initialized", tc.seen)
		}
	}
}

// What runs is killed: it is given no time, and no plan starts anything before it is gone.
func TestARoundIsClearedByKilling(t *testing.T) {
	pod := aPod(corev1.RestartPolicyAlways, "a", "b")
	restartAll(&pod.Spec.Containers[0])
	in := Input{Pod: pod, Observed: seen("+ a=42 b=run"), Memory: &Memory{}, Now: t0}
	if got, want := show(Decide(in)), "stop:b:0s wait:a:RestartingAllContainers"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	in.Busy.Stopping = map[string]time.Time{"b-2": t0}
	if got, want := show(Decide(in)), "wait:a:RestartingAllContainers"; got != want {
		t.Errorf("while b is being killed: %q, want %q", got, want)
	}
}

// A container that ends its pod's round again and again backs off, as one that crashes does; what it takes with it does not.
func TestEndingTheRoundAgainBacksOff(t *testing.T) {
	pod := aPod(corev1.RestartPolicyNever, "a", "b")
	restartAll(&pod.Spec.Containers[0])
	in := Input{Pod: pod, Observed: seen("+ a=42 b=137"), Memory: &Memory{}, Now: t0}
	in.Memory.Container("a").Crash = Backoff{Delay: time.Minute, Since: t0.Add(-time.Minute)}
	p := Decide(in)
	if len(p.Start) != 1 || p.Start[0].Name != "b" || p.Start[0].Last != nil || p.Waiting["a"].Reason != ReasonCrashLoop {
		t.Errorf("%+v", p)
	}
}
