package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// say prints a status in one line: phase, the conditions that are true, the containers.
func say(s corev1.PodStatus) string {
	out := []string{string(s.Phase)}
	names := map[corev1.PodConditionType]string{corev1.PodReadyToStartContainers: "S", corev1.PodInitialized: "I", corev1.PodReady: "R", corev1.ContainersReady: "C"}
	flags := ""
	for _, c := range s.Conditions {
		if c.Status == corev1.ConditionTrue {
			flags += names[c.Type]
		}
	}
	return strings.Join(append(out, flags, sayContainers(s)), " ")
}

func sayContainers(s corev1.PodStatus) string {
	var out []string
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for _, c := range list {
			word := ""
			switch {
			case c.State.Running != nil:
				word = "run"
			case c.State.Terminated != nil:
				word = fmt.Sprint(c.State.Terminated.Reason, c.State.Terminated.ExitCode)
			case c.State.Waiting != nil:
				word = c.State.Waiting.Reason
			}
			if c.Ready {
				word += "+"
			}
			if c.RestartCount > 0 {
				word += fmt.Sprint("*", c.RestartCount)
			}
			if c.LastTerminationState.Terminated != nil {
				word += fmt.Sprint("<", c.LastTerminationState.Terminated.ExitCode)
			}
			out = append(out, c.Name+"="+word)
		}
	}
	return strings.Join(out, " ")
}

func TestStatus(t *testing.T) {
	const A, F, N = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, tc := range []struct {
		name       string
		pod        *corev1.Pod
		seen, want string
		with       func(*Input)
	}{
		{"new", aPod(A, "a"), "", "Pending I a=ContainerCreating", nil},
		{"new with init", aPod(A, "i", "a"), "+", "Pending S i=PodInitializing a=PodInitializing", nil},
		{"init runs", aPod(A, "i", "a"), "+ i=run", "Pending S i=run a=PodInitializing", nil},
		{"init done", aPod(A, "i", "a"), "+ i=0", "Pending SI i=Completed0+ a=ContainerCreating", nil},
		{"runs", aPod(A, "a", "b"), "+ a=run b=run", "Running SIRC a=run+ b=run+", nil},
		{"one of two", aPod(A, "a", "b"), "+ a=run", "Pending SI a=run+ b=ContainerCreating", nil},
		{"not ready", aPod(A, "a"), "+ a=run", "Running SI a=run", func(in *Input) { in.Health = map[string]Health{"a-1": {Started: true}} }},
		{"postStart runs", aPod(A, "a"), "+ a=run", "Running SI a=run", func(in *Input) { in.Memory.Container("a").PostStart = true }},
		{"crashed and back", aPod(A, "a"), "+ a=1 a=run", "Running SIRC a=run+*1<1", nil},
		{"crash loop", aPod(A, "a"), "+ a=1 a=2", "Running SI a=CrashLoopBackOff*1<2", func(in *Input) {
			in.Memory.Container("a").Crash = Backoff{Delay: time.Minute, Since: t0}
		}},
		{"job succeeded", aPod(N, "a", "b"), "- a=0 b=0", "Succeeded I a=Completed0 b=Completed0", nil},
		{"job failed", aPod(N, "a", "b"), "- a=0 b=1", "Failed I a=Completed0 b=Error1", nil},
		{"job ended but the sidecar still runs", aPod(N, "s", "a"), "+ s=run a=0", "Running SI s=run+ a=Completed0", func(in *Input) { in.Pod.Status.Phase = corev1.PodRunning }},
		{"init failed", aPod(N, "i", "a"), "+ i=3", "Failed S i=Error3 a=PodInitializing", nil},
		{"on failure, restarting", aPod(F, "a"), "+ a=1", "Running SI a=Error1", nil},
		{"restarting container that was forgotten by the runtime", aPod(A, "a"), "+", "Running SI a=ContainerCreating*4<9", func(in *Input) {
			in.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", RestartCount: 4, ContainerID: "containerd://x",
				State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 9}}}}
		}},
		{"deleted and stopped", aPod(A, "a"), "- a=143", "Failed I a=Error143", func(in *Input) {
			in.Pod.DeletionTimestamp = &metav1.Time{Time: t0}
			in.Memory.Terminating, in.Memory.TornDown = t0, true
		}},
		{"what ended stays ended", aPod(A, "a"), "", "Failed I a=Error7", func(in *Input) {
			in.Pod.Status.Phase = corev1.PodFailed
			in.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 7, Reason: "Error"}}}}
		}},
		{"readiness gate", func() *corev1.Pod {
			p := aPod(A, "a")
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
			return p
		}(), "+ a=run", "Running SIC a=run+", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := Input{Pod: tc.pod, Observed: seen(tc.seen), Memory: &Memory{StartTime: t0}, Now: t0, Node: Node{IPs: []string{"192.0.2.1"}}}
			if tc.with != nil {
				tc.with(&in)
			}
			p := Decide(in)
			got := Status(in, p.Waiting)
			if say(got) != tc.want {
				t.Errorf("%s:\n got %q\nwant %q", tc.seen, say(got), tc.want)
			}
		})
	}
}

func TestConditionsKeepTimesAndOthers(t *testing.T) {
	pod := aPod(corev1.RestartPolicyAlways, "a")
	early := metav1.NewTime(t0.Add(-time.Hour))
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: early},
		{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: early},
		{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: early},
	}
	s := Status(Input{Pod: pod, Observed: seen("+ a=run"), Memory: &Memory{}, Now: t0}, nil)
	want := map[corev1.PodConditionType]time.Time{corev1.PodScheduled: early.Time, corev1.PodInitialized: early.Time, corev1.PodReady: t0}
	for _, c := range s.Conditions {
		if at, ok := want[c.Type]; ok && !c.LastTransitionTime.Time.Equal(at) {
			t.Errorf("%s changed at %s, want %s", c.Type, c.LastTransitionTime, at)
		}
		delete(want, c.Type)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}
