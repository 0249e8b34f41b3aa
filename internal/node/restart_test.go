package node

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// history follows every version of the pods that the API has, until the test's bubble ends.
type history struct {
	lines map[string][]string // by pod, without repetitions
	stop  func()
}

// follow begins a history of what say makes of each version.
func (w *world) follow(say func(*corev1.Pod) string) *history {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h, ended := &history{lines: map[string][]string{}}, make(chan struct{})
	go func() {
		defer close(ended)
		client.Follow(ctx, slog.New(slog.DiscardHandler), w.c, api.Pods, client.ListOptions{}, func(b client.Batch) {
			for _, e := range b.Events {
				p := e.Object.(*corev1.Pod)
				if list := h.lines[p.Name]; len(list) == 0 || list[len(list)-1] != say(p) {
					h.lines[p.Name] = append(list, say(p))
				}
			}
		})
	}()
	h.stop = func() { cancel(); <-ended }
	return h
}

func readiness(p *corev1.Pod) string {
	return fmt.Sprintf("Ready=%s ContainersReady=%s %s", condition(p, corev1.PodReady), condition(p, corev1.ContainersReady), say(p))
}

// A restart of Knarr must not take pods out of their Services.
func TestPodsStayReadyWhileTheAgentIsAway(t *testing.T) {
	answer := func(*cri.ContainerStatus, []string) (*runtime.ExecResult, error) { return &runtime.ExecResult{}, nil }
	inBubble(t, runtime.FakeOptions{Exec: answer}, func(w *world) {
		w.agent.host.Prober = execProber{w.rt}
		probe := &corev1.Probe{PeriodSeconds: 3, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
		w.create(testPod("probed", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].StartupProbe = probe, probe
		}))
		w.create(testPod("plain"))
		always := corev1.ContainerRestartPolicyAlways
		w.create(testPod("sidecar", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "img:1", RestartPolicy: &always, StartupProbe: probe, ReadinessProbe: probe}}
		}))
		w.wait(10 * time.Second)
		h := w.follow(readiness)
		w.stop()
		time.Sleep(9 * time.Second)
		w.start()
		w.wait(20 * time.Second)
		h.stop()
		for name, lines := range h.lines {
			if len(lines) != 1 {
				t.Errorf("%s was %q", name, lines)
			}
		}
	})
}

// hooked is a runtime whose commands take time, and are cut off with their caller as containerd's are.
type hooked struct {
	runtime.Runtime
	takes      time.Duration
	begun, ran *int
	stops      *[]string // how long each stop was given
	clock      func() time.Duration
}

func (h hooked) ExecSync(ctx context.Context, _ string, _ []string, _ time.Duration) (*runtime.ExecResult, error) {
	*h.begun++
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(h.takes):
		*h.ran++
		return &runtime.ExecResult{}, nil
	}
}

func (h hooked) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	*h.stops = append(*h.stops, fmt.Sprintf("%s+%s", h.clock().Round(time.Second), grace.Round(time.Second)))
	return h.Runtime.StopContainer(ctx, id, grace)
}

// An agent that is restarted while a pod ends goes on: neither does the grace period begin anew, nor is a preStop hook that ended run again.
func TestTheEndOfAPodIsNotBegunAnew(t *testing.T) {
	for name, tc := range map[string]struct {
		hook   time.Duration // how long preStop takes
		end    time.Duration // how long the process takes to end
		stopAt time.Duration // when the agent goes away, after the deletion; it is back 5 s later
		begun  int           // how often preStop is begun
		ran    int           // how often it ends
		stops  string
		gone   time.Duration // when the pod is gone at the latest
	}{
		"while the hook runs":      {10 * time.Second, 6 * time.Second, 4 * time.Second, 2, 1, "[19s+11s]", 26 * time.Second},
		"after the hook ended":     {10 * time.Second, 6 * time.Second, 12 * time.Second, 1, 1, "[10s+20s 17s+13s]", 24 * time.Second},
		"where none is left":       {10 * time.Second, time.Hour, 28 * time.Second, 1, 1, "[10s+20s 33s+2s]", 36 * time.Second},
		"while a hook is too long": {time.Minute, 0, 20 * time.Second, 2, 0, "[30s+2s]", 33 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			begun, ran, stops, dir := 0, 0, []string{}, t.TempDir()
			var deleted time.Time
			opts := runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {StopTakes: tc.end}})}
			inBubble(t, opts, func(w *world) {
				w.prepare = func(a *Agent) { a.host.Node.PodDir = dir }
				w.prepare(w.agent)
				w.create(testPod("a", func(p *corev1.Pod) {
					grace := int64(30)
					p.Spec.TerminationGracePeriodSeconds = &grace
					p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"drain"}}}}
				}))
				w.wait(time.Second)
				deleted = time.Now()
				w.delete("a")
				w.wait(tc.stopAt)
				w.stop()
				time.Sleep(5 * time.Second)
				w.start()
				for w.has("a") && time.Since(deleted) < 2*time.Minute {
					w.wait(100 * time.Millisecond)
				}
				if took := time.Since(deleted); took > tc.gone {
					t.Errorf("the pod was gone after %s, want at most %s", took, tc.gone)
				}
				if begun != tc.begun || ran != tc.ran || fmt.Sprint(stops) != tc.stops {
					t.Errorf("preStop was begun %d times and ended %d times, stops %v; want %d, %d, %s", begun, ran, stops, tc.begun, tc.ran, tc.stops)
				}
			}, func(c *Config) {
				c.Runtime = hooked{c.Runtime, tc.hook, &begun, &ran, &stops, func() time.Duration { return time.Since(deleted) }}
			})
		})
	}
}

// After a power failure nothing runs any more: the pod gets a new sandbox, and its init containers run again, whatever the restart policy.
func TestInitContainersRunAgainAfterAPowerFailure(t *testing.T) {
	for _, policy := range []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever} {
		t.Run(string(policy), func(t *testing.T) {
			opts := runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"init": {RunsFor: 20 * time.Second}})}
			inBubble(t, opts, func(w *world) {
				w.create(testPod("a", func(p *corev1.Pod) {
					p.Spec.RestartPolicy = policy
					p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "img:1"}}
				}))
				w.wait(25 * time.Second)
				w.expect("a", "Running init=ended:Completed:0+ready c=running+ready")
				first := w.pod("a").Status.PodIP
				w.stop()
				w.killSandboxes()
				w.start()
				w.wait(10 * time.Second)
				p := w.pod("a")
				if policy == corev1.RestartPolicyNever {
					w.expect("a", "Failed init=ended:Completed:0+ready c=ended:Error:137") // nothing runs again
					return
				}
				if p.Status.PodIP == first || condition(p, corev1.PodInitialized) != corev1.ConditionFalse || condition(p, corev1.PodReady) != corev1.ConditionFalse {
					t.Errorf("while init runs again: %s, %s, %s: the status was refused", say(p), p.Status.PodIP, readiness(p))
				}
				w.wait(15 * time.Second)
				p = w.pod("a")
				if s := p.Status.InitContainerStatuses[0]; condition(p, corev1.PodReady) != corev1.ConditionTrue || s.State.Terminated == nil || s.RestartCount != 1 || !s.Ready {
					t.Errorf("afterwards: %s, %+v", readiness(p), s)
				}
			})
		})
	}
}

// killSandboxes ends everything in the runtime, as a power failure does.
func (w *world) killSandboxes() {
	w.t.Helper()
	list, err := w.rt.ListPodSandbox(context.Background(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range list {
		if err := w.rt.KillSandbox(s.Id); err != nil {
			w.t.Fatal(err)
		}
	}
}

// An evicted pod that takes a while to end is not forgotten when the agent is restarted meanwhile.
func TestAnEvictionGoesOn(t *testing.T) {
	dir := t.TempDir()
	opts := runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {StopTakes: time.Hour}})}
	inBubble(t, opts, func(w *world) {
		w.prepare = func(a *Agent) { a.host.Node.PodDir = dir }
		w.prepare(w.agent)
		w.create(testPod("a"))
		w.agent.pods.All()[0].Evict("The node was low on resource: memory. ")
		w.wait(100 * time.Millisecond)
		w.stop()
		w.start()
		w.wait(5 * time.Second)
		w.expect("a", "Failed(Evicted) c=ended:Error:137")
	})
}

// An agent that is linked with servers says in its Lease when it ends in order, and takes that back when it is there again.
func TestTheAgentSaysThatItLeaves(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		left := func() string {
			l, err := client.Get[*coordinationv1.Lease](context.Background(), w.c, api.Key{Namespace: corev1.NamespaceNodeLease, Name: "n1"})
			if err != nil {
				t.Fatal(err)
			}
			return l.Annotations[agentlink.AnnotationLeft]
		}
		w.wait(time.Second)
		if left() != "" {
			t.Error("the agent left while it is there")
		}
		w.stop()
		if left() != time.Now().UTC().Format(time.RFC3339) {
			t.Errorf("the agent left at %q", left())
		}
		time.Sleep(9 * time.Second)
		w.start()
		if left() != "" {
			t.Error("the agent is there again and still left")
		}
	}, func(c *Config) { c.Linked = true })
}
