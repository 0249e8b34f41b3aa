package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// manifest is a pod of the given name with a spec in YAML, indented by two.
func manifest(name, spec string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %[1]s}}\nspec:\n%s\n---\n", name, strings.Trim(spec, "\n"))
}

// awaitPod waits until a pod is as check wants it.
func awaitPod(t testing.TB, namespace, name string, timeout time.Duration, what string, check func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var p *corev1.Pod
	eventually(t, timeout, "pod "+name+": "+what, func() error {
		p = &corev1.Pod{}
		get(t, p, "-n", namespace, "get", "pod", name)
		if !check(p) {
			return fmt.Errorf("it is %s, conditions %+v, containers %+v", p.Status.Phase, p.Status.Conditions, p.Status.ContainerStatuses)
		}
		return nil
	})
	return p
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// waitingFor reports whether the first container waits for reason and its message holds text.
func waitingFor(reason, text string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		if len(p.Status.ContainerStatuses) == 0 {
			return false
		}
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == reason && strings.Contains(w.Message, text)
	}
}

func restarted(times int32) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount == times && p.Status.ContainerStatuses[0].State.Running != nil
	}
}

func TestContainersStartInOrder(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, manifest("p", `
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: one, image: "busybox:1", command: [sh, -c, "sleep 0.3; echo one >> /v/log"], volumeMounts: [{name: v, mountPath: /v}]}
  - name: side
    image: busybox:1
    restartPolicy: Always
    command: [sh, -c, "sleep 0.5; echo side >> /v/log; trap 'echo side ends; exit 0' TERM; while :; do sleep 0.1; done"]
    startupProbe: {exec: {command: [grep, side, /v/log]}, periodSeconds: 1}
    volumeMounts: [{name: v, mountPath: /v}]
  - {name: two, image: "busybox:1", command: [sh, -c, "echo two >> /v/log"], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: main, image: "busybox:1", command: [sh, -c, "echo main >> /v/log; cat /v/log"], volumeMounts: [{name: v, mountPath: /v}]}
`))
	p := awaitPod(t, ns, "p", 60*time.Second, "ended", ended)
	if p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the pod is %s, though a sidecar does not count", p.Status.Phase)
	}
	if got := kubectl(t, "-n", ns, "logs", "p", "-c", "main"); got != "one\nside\ntwo\nmain\n" {
		t.Errorf("the order was %q", got)
	}
	if got := kubectl(t, "-n", ns, "logs", "p", "-c", "side"); got != "side ends\n" {
		t.Errorf("the sidecar was not told to end after the main container: %q", got)
	}
	side, main := p.Status.InitContainerStatuses[1].State.Terminated, p.Status.ContainerStatuses[0].State.Terminated
	if side == nil || main == nil || side.FinishedAt.Before(&main.FinishedAt) {
		t.Errorf("the sidecar ended %+v, the main container %+v", side, main)
	}
}

func TestAFailingInitContainerHoldsThePod(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const spec = `
  restartPolicy: %s
  initContainers: [{name: i, image: "busybox:1", command: [sh, -c, "exit 9"]}]
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "%s"]}]
`
	apply(t, ns, manifest("never", fmt.Sprintf(spec, "Never", obedient))+manifest("always", fmt.Sprintf(spec, "Always", obedient)))
	p := awaitPod(t, ns, "never", 60*time.Second, "ended", ended)
	if p.Status.Phase != corev1.PodFailed || p.Status.ContainerStatuses[0].State.Waiting.Reason != "PodInitializing" {
		t.Errorf("restartPolicy Never: %+v", p.Status)
	}
	awaitPod(t, ns, "always", 60*time.Second, "backing off", func(p *corev1.Pod) bool {
		s := p.Status.InitContainerStatuses
		return len(s) == 1 && s[0].RestartCount > 0 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	session(t, ns, []step{
		{"", "get pod never", "0/1 Init:Error 0"},
		{"", "get pod always", "0/1 Init:CrashLoopBackOff"},
	})
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const spec = `
  restartPolicy: %s
  volumes: [{name: v, emptyDir: {}}]
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "%s"], volumeMounts: [{name: v, mountPath: /v}]}]
`
	apply(t, ns, manifest("never", fmt.Sprintf(spec, "Never", "exit 3"))+
		manifest("done", fmt.Sprintf(spec, "OnFailure", "exit 0"))+
		manifest("second", fmt.Sprintf(spec, "OnFailure", "[ -e /v/again ] || { touch /v/again; exit 5; }")))
	if p := awaitPod(t, ns, "never", 60*time.Second, "ended", ended); p.Status.Phase != corev1.PodFailed || p.Status.ContainerStatuses[0].State.Terminated.ExitCode != 3 {
		t.Errorf("restartPolicy Never: %+v", p.Status)
	}
	if p := awaitPod(t, ns, "done", 60*time.Second, "ended", ended); p.Status.Phase != corev1.PodSucceeded || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("restartPolicy OnFailure, exit 0: %+v", p.Status)
	}
	p := awaitPod(t, ns, "second", 60*time.Second, "ended", ended)
	if s := p.Status.ContainerStatuses[0]; p.Status.Phase != corev1.PodSucceeded || s.RestartCount != 1 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 5 {
		t.Errorf("restartPolicy OnFailure, exit 5 and then 0: %+v", s)
	}
	// Not sooner: what it shows between its second end and its third start has to be seen within these ten seconds.
	apply(t, ns, manifest("crash", fmt.Sprintf(spec, "Always", "echo bye; exit 6")))
	awaitPod(t, ns, "crash", 60*time.Second, "backing off", waitingFor("CrashLoopBackOff", "back-off 10s restarting failed container=c pod=crash_"+ns))
	session(t, ns, []step{
		{"", "get pod crash", "CrashLoopBackOff 1 ("},
		{"", "logs crash --previous", "bye"},
		{"", "get events --field-selector reason=BackOff", "Warning BackOff pod/crash Back-off restarting failed container c in pod crash_"},
	})
	// The back-off is kept: the third start is 10 s after the second end.
	p = awaitPod(t, ns, "crash", 30*time.Second, "restarted twice", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 2 })
	var third time.Time
	switch s := p.Status.ContainerStatuses[0]; {
	case s.State.Running != nil:
		third = s.State.Running.StartedAt.Time
	case s.State.Terminated != nil:
		third = s.State.Terminated.StartedAt.Time
	default:
		third = s.LastTerminationState.Terminated.StartedAt.Time
	}
	var events corev1.EventList
	eventually(t, 10*time.Second, "one event of reason Started, counted three times", func() error {
		get(t, &events, "-n", ns, "get", "events", "--field-selector", "reason=Started,involvedObject.name=crash")
		if n := len(events.Items); n != 1 || events.Items[0].Count != 3 {
			return fmt.Errorf("there are %d: %+v", n, events.Items)
		}
		return nil
	})
	if d := third.Sub(events.Items[0].FirstTimestamp.Time); d < 9*time.Second {
		t.Errorf("the third start came %v after the first, want at least 10 s", d)
	}
}

func TestAKilledProcessIsRestarted(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, manifest("p", `
  containers: [{name: c, image: "busybox:1", command: [sleep, "98761"]}]
`))
	before := awaitPod(t, ns, "p", 60*time.Second, "Ready", ready)
	kill(t, before, "sleep", syscall.SIGKILL)
	after := awaitPod(t, ns, "p", 20*time.Second, "restarted once", restarted(1))
	last := after.Status.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 137 || last.Reason != "Error" {
		t.Errorf("the first run's end is told as %+v, want exit code 137, reason Error", last)
	}
	if after.Status.PodIP != before.Status.PodIP {
		t.Errorf("the pod's address changed from %s to %s", before.Status.PodIP, after.Status.PodIP)
	}
	kubectl(t, "-n", ns, "delete", "pod", "p", "--grace-period=0", "--force")
}

func TestALostSandboxIsMadeAnew(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, manifest("p", `
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "`+obedient+`"]}]
`))
	before := awaitPod(t, ns, "p", 60*time.Second, "Ready", ready)
	kill(t, before, "pause", syscall.SIGKILL)
	after := awaitPod(t, ns, "p", 40*time.Second, "running again", func(p *corev1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].ContainerID != before.Status.ContainerStatuses[0].ContainerID
	})
	if n := after.Status.ContainerStatuses[0].RestartCount; n != 1 {
		t.Errorf("the container was restarted %d times, want 1", n)
	}
	session(t, ns, []step{
		{"", "exec p -- hostname -i", after.Status.PodIP},
		{"", "get events --field-selector reason=SandboxChanged", "Pod sandbox changed, it will be killed and re-created."},
	})
}

func TestPodsEndGracefully(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dir := t.TempDir()
	apply(t, ns, manifest("polite", `
  terminationGracePeriodSeconds: 20
  volumes: [{name: v, hostPath: {path: `+dir+`}}]
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, "trap 'echo told >> /v/log; exit 0' TERM; while :; do sleep 0.1; done"]
    lifecycle:
      postStart: {exec: {command: [sh, -c, "echo begun >> /v/log"]}}
      preStop: {exec: {command: [sh, -c, "sleep 1; echo warned >> /v/log"]}}
    volumeMounts: [{name: v, mountPath: /v}]
`)+manifest("deaf", `
  terminationGracePeriodSeconds: 2
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "trap '' TERM; while :; do sleep 0.1; done"]}]
`))
	awaitPod(t, ns, "polite", 60*time.Second, "Ready", ready)
	awaitPod(t, ns, "deaf", 60*time.Second, "Ready", ready)
	began := time.Now()
	kubectl(t, "-n", ns, "delete", "pod", "polite")
	if took := time.Since(began); took < time.Second || took > 25*time.Second {
		t.Errorf("a pod with a preStop hook of 1 s ended after %v", took)
	}
	if log, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || string(log) != "begun\nwarned\ntold\n" {
		t.Errorf("hooks and signal came as %q, %v", log, err)
	}
	began = time.Now()
	kubectl(t, "-n", ns, "delete", "pod", "deaf")
	if took := time.Since(began); took < 2*time.Second || took > 25*time.Second {
		t.Errorf("a pod that does not listen to SIGTERM, with a grace period of 2 s, ended after %v", took)
	}
}

func TestPodsSayHowTheyEnded(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, manifest("message", `
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "echo last words > /dev/termination-log; exit 1"]}]
`)+manifest("fromlog", `
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1", terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, "echo in the log; exit 1"]}]
`)+manifest("deadline", `
  activeDeadlineSeconds: 2
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "`+obedient+`"]}]
`)+manifest("hostnetwork", `
  hostNetwork: true
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1", command: [cat, /etc/hostname]}]
`))
	for name, want := range map[string]string{"message": "last words\n", "fromlog": "in the log\n"} {
		p := awaitPod(t, ns, name, 60*time.Second, "ended", ended)
		if got := p.Status.ContainerStatuses[0].State.Terminated.Message; got != want {
			t.Errorf("pod %s ended with message %q, want %q", name, got, want)
		}
	}
	p := awaitPod(t, ns, "deadline", 60*time.Second, "ended", ended)
	if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "DeadlineExceeded" {
		t.Errorf("after activeDeadlineSeconds the pod is %s, %s, %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
	p = awaitPod(t, ns, "hostnetwork", 60*time.Second, "ended", ended)
	if p.Status.PodIP != p.Status.HostIP || p.Status.PodIP == "" {
		t.Errorf("a pod in the host's network has address %q, the host %q", p.Status.PodIP, p.Status.HostIP)
	}
}

// kill sends a signal to the process of a pod whose executable is called name.
func kill(t testing.TB, p *corev1.Pod, name string, sig syscall.Signal) {
	t.Helper()
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, file := range comms {
		comm, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(comm)) != name {
			continue
		}
		dir := filepath.Dir(file)
		if cg, err := os.ReadFile(dir + "/cgroup"); err != nil || !regexp.MustCompile("pod"+strings.ReplaceAll(string(p.UID), "-", "[-_]")).Match(cg) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed != 1 {
		t.Fatalf("%d processes called %s found in pod %s, want 1", killed, name, p.Name)
	}
}
