package node

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// apply begins what the plan asks for. w.mu must be held.
func (w *worker) apply(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed, p *lifecycle.Plan) {
	for i := range p.Stop {
		w.stop(ctx, pod, p.Stop[i])
	}
	switch {
	case p.Sandbox:
		if len(p.StopSandboxes) > 0 && !w.busy.Sandbox {
			w.a.events.Normal(pod, "", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
		}
		w.begin(ctx, &w.busy.Sandbox, func(ctx context.Context) { w.makeSandbox(ctx, pod, p.Attempt, p.StopSandboxes) })
	case len(p.Start) > 0:
		w.begin(ctx, &w.busy.Start, func(ctx context.Context) { w.startAll(ctx, pod, obs, p.Start) })
	case p.Resize && !p.Terminating:
		w.begin(ctx, &w.busy.Start, func(ctx context.Context) { w.resizeAll(ctx, pod, obs) })
	case p.Teardown:
		w.begin(ctx, &w.busy.Teardown, func(ctx context.Context) { w.teardown(ctx, obs) })
	case p.Remove:
		w.begin(ctx, &w.busy.Teardown, func(ctx context.Context) { w.remove(ctx, obs) })
	case w.needsVolumes(obs, p):
		w.begin(ctx, &w.busy.Start, func(ctx context.Context) { w.refreshVolumes(ctx, pod) })
	case len(p.Prune)+len(p.PruneSandboxes) > 0:
		w.begin(ctx, &w.busy.Teardown, func(ctx context.Context) { w.prune(ctx, obs, p) })
	}
}

// begin runs an operation that may take long, and looks at the pod again when it is over. busy says meanwhile that it runs. w.mu must be
// held.
func (w *worker) begin(ctx context.Context, busy *bool, op func(context.Context)) {
	if *busy {
		return
	}
	*busy = true
	ctx, cancel := context.WithCancel(ctx)
	if busy != &w.busy.Teardown {
		w.cancel = cancel
	}
	ok := w.a.tasks.Go(func() {
		op(ctx)
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		*busy = false
		w.obs = nil
		w.looks++
		w.notifyLocked()
	})
	if !ok {
		cancel()
	}
}

// facts are what the downward API tells of the pod's place. w.mu must be held.
func (w *worker) facts() podspec.Facts {
	return podspec.Facts{PodIPs: w.podIPs(), HostIPs: w.a.cfg.NodeIPs, Allocatable: w.a.allocatable}
}

// sandboxRetry is how long after a failure a sandbox is tried again: 0.5 s doubling to 2 min.
func (w *worker) sandboxRetry() {
	b := &w.mem.SandboxBackoff
	b.Delay = min(max(2*b.Delay, 500*time.Millisecond), 2*time.Minute)
	w.mem.SandboxRetryAt = time.Now().Add(b.Delay)
}

// makeSandbox gives the pod its control group, volumes and sandbox.
func (w *worker) makeSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32, old []string) {
	fail := func(reason, message string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		w.a.events.Warning(w.pod, "", reason, message)
		w.sandboxRetry()
	}
	for _, id := range old {
		if err := w.a.rt.StopPodSandbox(ctx, id); err != nil {
			fail("FailedKillPod", fmt.Sprintf("error killing pod: failed to \"KillPodSandbox\" for %q: %v", pod.UID, err))
			return
		}
	}
	parent, err := w.a.cgroups.Setup(string(pod.UID), podspec.ForPod(pod))
	if err != nil {
		fail("FailedCreatePodContainer", err.Error())
		return
	}
	w.a.sources.Use(w, pod)
	w.mu.Lock()
	w.parent = parent
	facts := w.facts()
	w.mu.Unlock()
	if err := w.setupVolumes(ctx, pod, facts); err != nil {
		fail("FailedMount", err.Error())
		return
	}
	cfg, err := w.sandboxConfig(ctx, pod, attempt)
	if err != nil {
		fail("FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
		return
	}
	if !w.a.cfg.Hollow {
		if err := os.MkdirAll(cfg.LogDirectory, 0o755); err != nil {
			fail("FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
			return
		}
	}
	handler, err := w.a.runtimeHandler(ctx, pod)
	if err != nil {
		fail("FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
		return
	}
	call, cancel := w.a.tasks.Steady(ctx)
	defer cancel()
	id, err := w.a.rt.RunPodSandbox(call, cfg, handler)
	if err != nil {
		w.forgetSandboxes()
		if h := w.a.checkRuntime(ctx); h.network != "" && !pod.Spec.HostNetwork {
			fail("NetworkNotReady", "network is not ready: "+h.network)
			return
		}
		fail("FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sandbox, w.mem.SandboxBackoff = cfg, lifecycle.Backoff{}
	if w.known != nil {
		w.known = append(slices.Clone(w.known), id)
	}
}

// forgetSandboxes makes the next look ask the runtime which sandboxes the pod has.
func (w *worker) forgetSandboxes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = nil
}

// sandboxConfig translates the pod, with its own user namespace where it asks for one.
func (w *worker) sandboxConfig(ctx context.Context, pod *corev1.Pod, attempt uint32) (*cri.PodSandboxConfig, error) {
	n, err := w.nodeFor(ctx, pod)
	if err != nil {
		return nil, err
	}
	return podspec.Sandbox(pod, n, attempt)
}

// nodeFor returns what the translation of this pod needs to know.
func (w *worker) nodeFor(ctx context.Context, pod *corev1.Pod) (*podspec.Node, error) {
	n := &podspec.Node{LogDir: w.a.cfg.logDir(), SeccompDir: w.a.cfg.DataDir + "/seccomp", Capacity: w.a.capacity, DNS: w.a.dns}
	w.mu.Lock()
	n.CgroupParent = w.parent
	w.mu.Unlock()
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		var err error
		if n.UserNamespace, err = w.a.userNamespace(ctx, pod); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// setupVolumes makes the volumes or brings them up to date.
func (w *worker) setupVolumes(ctx context.Context, pod *corev1.Pod, facts podspec.Facts) error {
	w.mu.Lock()
	w.refresh = false
	w.mu.Unlock()
	mounted, renew, err := w.a.volumes.Setup(ctx, pod, w.a.sources, facts)
	if err != nil {
		return err
	}
	if mounted == nil {
		mounted = noneMounted
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.volumes, w.renew = mounted, renew
	return nil
}

// needsVolumes tells whether the volumes of a running pod have to be set up again: they changed, a token is due, or the agent was
// restarted. w.mu must be held.
func (w *worker) needsVolumes(obs *lifecycle.Observed, p *lifecycle.Plan) bool {
	sb := obs.Sandbox()
	return !p.Terminating && !w.busy.Start && !w.busy.Sandbox && sb != nil && sb.Ready && (w.refresh || w.volumes == nil)
}

func (w *worker) refreshVolumes(ctx context.Context, pod *corev1.Pod) {
	w.a.sources.Use(w, pod)
	w.mu.Lock()
	facts := w.facts()
	pod = w.pod // the newest labels
	w.mu.Unlock()
	err := w.setupVolumes(ctx, pod, facts)
	if err == nil || ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.a.events.Warning(w.pod, "", "FailedMount", err.Error())
	if w.volumes == nil {
		w.volumes = noneMounted // tried; containers that run keep what they have
	}
	w.renew = time.Now().Add(10 * time.Second)
}
