package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// world is a cluster of one hollow node in a synctest bubble.
type world struct {
	t     *testing.T
	c     *client.Local
	rt    *runtime.Fake
	agent *Agent
	stop  func()
	// change adjusts the agent's configuration.
	change []func(*Config)
	// prepare, if set, adjusts each new agent before it runs.
	prepare func(*Agent)
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func hollowConfig(t *testing.T, c client.Client, rt runtime.Runtime) Config {
	return Config{
		NodeName: "n1", Client: c, Runtime: rt, Hollow: true, NodeIPs: []string{"192.0.2.1"},
		Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi")},
		Logger:   slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
}

// inBubble runs f with a running agent over a fake runtime.
func inBubble(t *testing.T, opts runtime.FakeOptions, f func(w *world), change ...func(*Config)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, c: clienttest.New(t), rt: runtime.NewFake(opts), change: change}
		clienttest.Create(t, w.c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: corev1.NamespaceNodeLease}})
		w.start()
		f(w)
		w.stop()
	})
}

// start runs an agent until stop.
func (w *world) start() {
	cfg := hollowConfig(w.t, w.c, w.rt)
	for _, f := range w.change {
		f(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.prepare != nil {
		w.prepare(a)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.agent, w.stop = a, func() { cancel(); wg.Wait() }
	synctest.Wait()
}

func testPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{
		NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "img:1"}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func (w *world) create(p *corev1.Pod) {
	w.t.Helper()
	clienttest.Create(w.t, w.c, p)
	synctest.Wait()
}

func (w *world) pod(name string) *corev1.Pod {
	w.t.Helper()
	p, err := client.Get[*corev1.Pod](context.Background(), w.c, api.Key{Namespace: "default", Name: name})
	if err != nil {
		w.t.Fatalf("pod %s: %v", name, err)
	}
	return p
}

func (w *world) has(name string) bool {
	_, err := client.Get[*corev1.Pod](context.Background(), w.c, api.Key{Namespace: "default", Name: name})
	return err == nil
}

func (w *world) wait(d time.Duration) {
	time.Sleep(d) // the bubble's clock
	synctest.Wait()
}

// say describes a pod in one line: phase, then each container.
func say(p *corev1.Pod) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", p.Status.Phase)
	if p.Status.Reason != "" {
		fmt.Fprintf(&b, "(%s)", p.Status.Reason)
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		state := "?"
		switch {
		case s.State.Running != nil:
			state = "running"
		case s.State.Terminated != nil:
			state = fmt.Sprintf("ended:%s:%d", s.State.Terminated.Reason, s.State.Terminated.ExitCode)
		case s.State.Waiting != nil:
			state = "waiting:" + s.State.Waiting.Reason
		}
		if s.Ready {
			state += "+ready"
		}
		fmt.Fprintf(&b, " %s=%s", s.Name, state)
		if s.RestartCount > 0 {
			fmt.Fprintf(&b, "*%d", s.RestartCount)
		}
	}
	return b.String()
}

func (w *world) expect(name, want string) {
	w.t.Helper()
	if got := say(w.pod(name)); got != want {
		w.t.Errorf("pod %s at %s:\n got %s\nwant %s", name, time.Now().Format("15:04:05"), got, want)
	}
}

func behave(by map[string]runtime.Behaviour) func(*cri.PodSandboxConfig, *cri.ContainerConfig) runtime.Behaviour {
	return func(_ *cri.PodSandboxConfig, c *cri.ContainerConfig) runtime.Behaviour { return by[c.Metadata.Name] }
}

func TestPodRunsAndIsDeleted(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a"))
		w.expect("a", "Running c=running+ready")
		p := w.pod("a")
		if p.Status.PodIP == "" || p.Status.HostIP != "192.0.2.1" || p.Status.QOSClass != corev1.PodQOSBestEffort || p.Status.StartTime == nil {
			t.Errorf("status: %+v", p.Status)
		}
		for _, c := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady} {
			if s := condition(p, c); s != corev1.ConditionTrue {
				t.Errorf("condition %s is %q", c, s)
			}
		}
		w.delete("a")
		w.wait(time.Second)
		if w.has("a") {
			t.Errorf("pod is still there: %s", say(w.pod("a")))
		}
		if left := w.rt.ContainerIDs(); len(left) > 0 {
			t.Errorf("containers left: %v", left)
		}
		if n := len(w.agent.pods.All()); n != 0 {
			t.Errorf("%d workers left", n)
		}
	})
}

func (w *world) delete(name string) {
	w.t.Helper()
	if err := client.Delete[*corev1.Pod](context.Background(), w.c, api.Key{Namespace: "default", Name: name}, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func condition(p *corev1.Pod, t corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return ""
}

func TestCrashLoopDoublesAndResets(t *testing.T) {
	inBubble(t, runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {RunsFor: time.Second, ExitCode: 3}})}, func(w *world) {
		w.create(testPod("a"))
		w.expect("a", "Running c=running+ready")
		w.wait(time.Second) // first crash: restarted at once
		w.expect("a", "Running c=running+ready*1")
		w.wait(time.Second)
		w.expect("a", "Running c=waiting:CrashLoopBackOff*1")
		w.wait(9 * time.Second)
		w.expect("a", "Running c=waiting:CrashLoopBackOff*1")
		w.wait(1500 * time.Millisecond)
		w.expect("a", "Running c=running+ready*2")
		w.wait(time.Second)
		w.expect("a", "Running c=waiting:CrashLoopBackOff*2")
		w.wait(20 * time.Second)
		w.expect("a", "Running c=running+ready*3")
		last := w.pod("a").Status.ContainerStatuses[0].LastTerminationState.Terminated
		if last == nil || last.ExitCode != 3 || last.Reason != "Error" {
			t.Errorf("last state: %+v", last)
		}
		if ids := w.rt.ContainerIDs(); len(ids) != 1 {
			t.Errorf("containers: %v", ids)
		}
	})
}

func TestInitThenSidecarThenContainers(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	opts := runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{
		"init": {RunsFor: 2 * time.Second}, "side": {}, "c": {RunsFor: 5 * time.Second}})}
	inBubble(t, opts, func(w *world) {
		w.create(testPod("a", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "img:1"}, {Name: "side", Image: "img:1", RestartPolicy: &always}}
		}))
		w.expect("a", "Pending init=running side=waiting:PodInitializing c=waiting:PodInitializing")
		w.wait(2 * time.Second)
		w.expect("a", "Running init=ended:Completed:0+ready side=running+ready c=running+ready")
		w.wait(6 * time.Second)
		w.expect("a", "Succeeded init=ended:Completed:0+ready side=ended:Completed:0 c=ended:Completed:0")
		if c := condition(w.pod("a"), corev1.PodReady); c != corev1.ConditionFalse {
			t.Errorf("Ready is %s", c)
		}
		w.delete("a")
		w.wait(time.Second)
		if w.has("a") {
			t.Error("a finished pod that was deleted is still there")
		}
	})
}

func TestFailedInitFailsThePod(t *testing.T) {
	inBubble(t, runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"init": {RunsFor: -1, ExitCode: 2}})}, func(w *world) {
		w.create(testPod("a", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "img:1"}}
		}))
		w.wait(time.Second)
		w.expect("a", "Failed init=ended:Error:2 c=waiting:PodInitializing")
	})
}

func TestImagePullFailsAndRecovers(t *testing.T) {
	var broken sync.Map
	broken.Store("on", true)
	opts := runtime.FakeOptions{Fail: func(method, id string) error {
		if _, on := broken.Load("on"); on && method == "PullImage" {
			return fmt.Errorf("no such image")
		}
		return nil
	}}
	inBubble(t, opts, func(w *world) {
		w.create(testPod("a"))
		w.expect("a", "Pending c=waiting:ErrImagePull")
		w.wait(4 * time.Second)
		w.expect("a", "Pending c=waiting:ImagePullBackOff")
		if m := w.pod("a").Status.ContainerStatuses[0].State.Waiting.Message; !strings.HasPrefix(m, `Back-off pulling image "img:1"`) {
			t.Errorf("message %q", m)
		}
		broken.Delete("on")
		w.wait(7 * time.Second)
		w.expect("a", "Running c=running+ready")
	})
}

func TestGracefulDeletionTakesItsTime(t *testing.T) {
	inBubble(t, runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {StopTakes: 5 * time.Second}})}, func(w *world) {
		w.create(testPod("a"))
		w.delete("a")
		w.wait(4 * time.Second)
		w.expect("a", "Running c=running+ready")
		w.wait(2 * time.Second)
		if w.has("a") {
			t.Errorf("still there: %s", say(w.pod("a")))
		}
	})
}

func TestForcedDeletionHurries(t *testing.T) {
	inBubble(t, runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {StopTakes: time.Hour}})}, func(w *world) {
		w.create(testPod("a"))
		w.delete("a")
		w.wait(2 * time.Second)
		var zero int64
		if err := client.Delete[*corev1.Pod](context.Background(), w.c, api.Key{Namespace: "default", Name: "a"}, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		w.wait(3 * time.Second)
		if left := w.rt.ContainerIDs(); len(left) > 0 {
			t.Errorf("containers left: %v", left)
		}
	})
}

// What was deleted without grace may take a while to end; the scheduler gives its place away at once.
func TestForcedDeletionFreesThePlace(t *testing.T) {
	inBubble(t, runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {StopTakes: time.Hour}})}, func(w *world) {
		w.create(testPod("extended", func(p *corev1.Pod) {
			foo := corev1.ResourceList{"example.com/foo": resource.MustParse("1")}
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: foo, Limits: foo}
		}))
		w.expect("extended", "Running c=running+ready")
		port := func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}}
		}
		w.create(testPod("old", port))
		var zero int64
		if err := client.Delete[*corev1.Pod](context.Background(), w.c, api.Key{Namespace: "default", Name: "old"}, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		w.create(testPod("new", port))
		w.expect("new", "Running c=running+ready")
	})
}

func TestTakeoverKeepsContainers(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a"))
		w.create(testPod("b"))
		before := w.rt.ContainerIDs()
		w.stop()
		var zero int64
		if err := client.Delete[*corev1.Pod](context.Background(), w.c, api.Key{Namespace: "default", Name: "b"}, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.wait(2 * time.Second)
		w.expect("a", "Running c=running+ready")
		after := w.rt.ContainerIDs()
		if before["a/c"] != after["a/c"] || len(after) != 1 {
			t.Errorf("before %v, after %v", before, after)
		}
	})
}

func TestRuntimeAwayRestartsNothing(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a"))
		before := w.rt.ContainerIDs()["a/c"]
		w.rt.SetDown(true)
		w.wait(30 * time.Second)
		n, _ := client.Get[*corev1.Node](context.Background(), w.c, api.Key{Name: "n1"})
		if r := readyStatus(n.Status.Conditions); r != "False" {
			t.Errorf("node Ready=%s while the runtime is down", r)
		}
		w.rt.SetDown(false)
		w.wait(30 * time.Second)
		w.expect("a", "Running c=running+ready")
		if after := w.rt.ContainerIDs()["a/c"]; after != before {
			t.Errorf("container %s became %s", before, after)
		}
	})
}

func TestLostSandboxIsReplaced(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a"))
		list, err := w.rt.ListPodSandbox(context.Background(), nil)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if err := w.rt.KillSandbox(list[0].Id); err != nil {
			t.Fatal(err)
		}
		w.wait(time.Second)
		w.expect("a", "Running c=running+ready*1")
	})
}

func TestReadinessAndLiveness(t *testing.T) {
	var mu sync.Mutex
	code := map[string]int32{"ready": 1, "live": 0}
	opts := runtime.FakeOptions{Exec: func(_ *cri.ContainerStatus, cmd []string) (*runtime.ExecResult, error) {
		mu.Lock()
		defer mu.Unlock()
		return &runtime.ExecResult{ExitCode: code[cmd[0]]}, nil
	}}
	set := func(k string, v int32) { mu.Lock(); code[k] = v; mu.Unlock() }
	probe := func(cmd string) *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: 5, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}}}
	}
	inBubble(t, opts, func(w *world) {
		w.agent.host.Prober = execProber{w.rt}
		w.create(testPod("a", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].LivenessProbe = probe("ready"), probe("live")
		}))
		w.wait(6 * time.Second)
		w.expect("a", "Running c=running")
		set("ready", 0)
		w.wait(6 * time.Second)
		w.expect("a", "Running c=running+ready")
		set("live", 1)
		w.wait(16 * time.Second)
		set("live", 0)
		w.wait(6 * time.Second)
		w.expect("a", "Running c=running+ready*1")
	})
}

// A pod that takes its time to end tells by its readiness probe until when it serves, and cannot be killed for its liveness any more.
func TestReadinessIsAskedUntilTheEnd(t *testing.T) {
	var code atomic.Int32
	opts := runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {StopTakes: 50 * time.Second}}),
		Exec: func(*cri.ContainerStatus, []string) (*runtime.ExecResult, error) {
			return &runtime.ExecResult{ExitCode: code.Load()}, nil
		}}
	inBubble(t, opts, func(w *world) {
		w.agent.host.Prober = execProber{w.rt}
		w.create(testPod("a", func(p *corev1.Pod) {
			grace := int64(60)
			p.Spec.TerminationGracePeriodSeconds = &grace
			probe := &corev1.Probe{PeriodSeconds: 5, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ask"}}}}
			p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].LivenessProbe = probe, probe
		}))
		w.wait(6 * time.Second)
		w.delete("a")
		w.wait(6 * time.Second)
		w.expect("a", "Running c=running+ready")
		code.Store(1)
		w.wait(16 * time.Second)
		w.expect("a", "Running c=running")
		w.wait(20 * time.Second)
		w.expect("a", "Running c=running")
		w.wait(10 * time.Second)
		if w.has("a") {
			t.Errorf("still there: %s", say(w.pod("a")))
		}
	})
}

// execProber runs exec probes on the fake.
type execProber struct{ rt *runtime.Fake }

func TestRefusedPods(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("big", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5")}
		}))
		w.expect("big", "Failed(OutOfcpu)")
		w.create(testPod("elsewhere", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"no": "such"} }))
		w.expect("elsewhere", "Failed(NodeAffinity)")
		if _, err := client.Mutate(context.Background(), w.c, api.Key{Name: "n1"}, "", func(n *corev1.Node) bool { n.Labels["disk"] = "fast"; return true }); err != nil {
			w.t.Fatal(err)
		}
		w.create(testPod("chosen", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "fast"} }))
		w.expect("chosen", "Running c=running+ready")
		port := func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}}
		}
		w.create(testPod("p1", port))
		w.create(testPod("p2", port))
		w.expect("p1", "Running c=running+ready")
		w.expect("p2", "Failed(NodePorts)")
	})
}

func TestDeadline(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		s := int64(10)
		w.create(testPod("a", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &s }))
		w.expect("a", "Running c=running+ready")
		w.wait(11 * time.Second)
		w.expect("a", "Failed(DeadlineExceeded) c=ended:Completed:0")
	})
}

func TestNodeIsRegisteredAndAlive(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		n, err := client.Get[*corev1.Node](context.Background(), w.c, api.Key{Name: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		if n.Labels[corev1.LabelHostname] != "n1" || readyStatus(n.Status.Conditions) != "True" || n.Status.Allocatable.Pods().Value() != 250 {
			t.Errorf("node %+v", n)
		}
		version := n.ResourceVersion
		w.wait(2 * time.Minute)
		n, _ = client.Get[*corev1.Node](context.Background(), w.c, api.Key{Name: "n1"})
		if n.ResourceVersion != version {
			t.Errorf("an unchanged node was written within two minutes: %v", n.Status.Conditions)
		}
		lease := w.lease()
		if age := time.Since(lease); age > 11*time.Second {
			t.Errorf("lease is %s old", age)
		}
	})
}

func TestNodeKeepsExtendedResourcesOfOthers(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		change := func(f func(capacity corev1.ResourceList)) corev1.NodeStatus {
			t.Helper()
			_, err := client.Mutate(context.Background(), w.c, api.Key{Name: "n1"}, "status", func(n *corev1.Node) bool { f(n.Status.Capacity); return true })
			if err != nil {
				t.Fatal(err)
			}
			w.wait(time.Minute)
			n, err := client.Get[*corev1.Node](context.Background(), w.c, api.Key{Name: "n1"})
			if err != nil {
				t.Fatal(err)
			}
			return n.Status
		}
		const dongle = "example.com/dongle"
		s := change(func(c corev1.ResourceList) {
			c[dongle], c[corev1.ResourcePods] = resource.MustParse("4"), resource.MustParse("1")
		})
		if got := s.Allocatable[dongle]; got.Value() != 4 || s.Capacity[dongle] != got {
			t.Errorf("after a minute the dongles are %s of %v", got.String(), s.Capacity)
		}
		if got := s.Capacity.Pods().Value(); got != 250 {
			t.Errorf("%d pods: the agent's own resources are as it measures them", got)
		}
		s = change(func(c corev1.ResourceList) { delete(c, dongle) })
		if got, there := s.Allocatable[dongle]; there {
			t.Errorf("dongles that were taken away can still be allocated: %s", got.String())
		}
	})
}

func TestNodeBecomesReadyAtOnce(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.rt.SetCondition(cri.NetworkReady, "cni plugin not initialized")
		w.wait(11 * time.Second)
		ready := func() string {
			n, _ := client.Get[*corev1.Node](context.Background(), w.c, api.Key{Name: "n1"})
			return readyStatus(n.Status.Conditions)
		}
		if ready() != "False" {
			t.Error("the node is ready without a network")
		}
		w.rt.SetCondition(cri.NetworkReady, "")
		w.wait(300 * time.Millisecond)
		if ready() != "True" {
			t.Error("the node is not ready 300 ms after its network")
		}
	})
}

// What the runtime has of a pod that the API does not know is ended, once both are known.
func TestOrphansAreEnded(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("kept"))
		w.create(testPod("orphan"))
		w.stop()
		var zero int64
		if err := client.Delete[*corev1.Pod](context.Background(), w.c, api.Key{Namespace: "default", Name: "orphan"}, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.wait(5 * time.Second)
		ids := w.rt.ContainerIDs()
		if len(ids) != 1 || ids["kept/c"] == "" {
			t.Errorf("containers: %v, want the one that the API knows", ids)
		}
		if n := len(w.agent.pods.All()); n != 1 {
			t.Errorf("%d workers", n)
		}
	})
}
