package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// All containers of a pod restart in place (KEP-5532): same sandbox, same address, one restart more each; the condition says when, and an
// agent that starts anew neither repeats it nor begins it again.
func TestAllContainersRestartInPlace(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		never := corev1.ContainerRestartPolicyNever
		w.create(testPod("p", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].RestartPolicy = &never
			p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
				ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: "img:1",
				Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 20}}}})
		}))
		w.wait(5 * time.Second)
		before := w.pod("p")
		if got := condition(before, corev1.AllContainersRestarting); got != "False" {
			t.Errorf("before: AllContainersRestarting=%s", got)
		}
		h := w.follow(func(p *corev1.Pod) string {
			return string(p.Status.Phase) + " " + string(condition(p, corev1.AllContainersRestarting))
		})
		w.wait(time.Second)
		w.exit(before, "c", 42)
		w.wait(5 * time.Second) // the hook of the other container, which is killed, does not run
		after := w.pod("p")
		h.stop()
		for _, s := range after.Status.ContainerStatuses {
			last := s.LastTerminationState.Terminated
			if s.State.Running == nil || s.RestartCount != 1 || last == nil || last.ExitCode != map[string]int32{"c": 42, "other": 137}[s.Name] {
				t.Errorf("%+v", s)
			}
		}
		if after.Status.PodIP != before.Status.PodIP {
			t.Errorf("the pod's address changed from %s to %s", before.Status.PodIP, after.Status.PodIP)
		}
		want := []string{"Running False", "Running True", "Running False"}
		if got := h.lines["p"]; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		w.stop()
		w.start()
		w.wait(30 * time.Second)
		if got, want := say(w.pod("p")), say(after); got != want {
			t.Errorf("after a restart of the agent %s, want %s", got, want)
		}
		w.exit(w.pod("p"), "c", 0)
		w.exit(w.pod("p"), "other", 0)
		w.wait(5 * time.Second)
		if p := w.pod("p"); p.Status.Phase != corev1.PodSucceeded || condition(p, corev1.AllContainersRestarting) != "False" {
			t.Errorf("after the end: %s", say(p))
		}
	})
}

// exit ends the container's run.
func (w *world) exit(p *corev1.Pod, container string, code int32) {
	w.t.Helper()
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == container {
			_, id, _ := strings.Cut(s.ContainerID, "://")
			if err := w.rt.Exit(id, code, ""); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}
