package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// sandboxRetry is how long after a failure a sandbox is tried again: 0.5 s doubling to 2 min.
func (w *Worker) sandboxRetry() {
	b := &w.mem.SandboxBackoff
	b.Delay = min(max(2*b.Delay, 500*time.Millisecond), 2*time.Minute)
	w.mem.SandboxRetryAt = time.Now().Add(b.Delay)
}

// sandboxError is why a pod has no sandbox, with the reason of its event.
type sandboxError struct{ reason, message string }

func (e *sandboxError) Error() string { return e.message }

func noSandbox(err error) error {
	return &sandboxError{"FailedCreatePodSandBox", "Failed to create pod sandbox: " + err.Error()}
}

// makeSandbox gives the pod its control group, volumes and sandbox, in place of old ones.
func (w *Worker) makeSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32, old []string) {
	cfg, id, err := w.trySandbox(ctx, pod, attempt, old)
	w.mu.Lock()
	defer w.mu.Unlock()
	var why *sandboxError
	switch {
	case err == nil:
		w.made.sandbox, w.mem.SandboxBackoff = cfg, lifecycle.Backoff{}
		if w.seen.sandboxes != nil {
			w.seen.sandboxes = append(slices.Clone(w.seen.sandboxes), id)
		}
	case ctx.Err() == nil && errors.As(err, &why):
		w.host.Events.Warning(w.pod, "", why.reason, why.message)
		w.sandboxRetry()
	}
}

// trySandbox is one try. Errors are *sandboxError.
func (w *Worker) trySandbox(ctx context.Context, pod *corev1.Pod, attempt uint32, old []string) (*cri.PodSandboxConfig, string, error) {
	for _, id := range old {
		if err := w.host.Runtime.StopPodSandbox(ctx, id); err != nil {
			return nil, "", &sandboxError{"FailedKillPod", fmt.Sprintf("error killing pod: failed to \"KillPodSandbox\" for %q: %v", pod.UID, err)}
		}
	}
	cgroup, err := w.host.Cgroups.Setup(string(pod.UID), podspec.ForPod(pod))
	if err != nil {
		return nil, "", &sandboxError{"FailedCreatePodContainer", err.Error()}
	}
	w.host.Sources.Use(w, pod)
	w.mu.Lock()
	w.made.cgroup = cgroup
	facts := w.facts()
	w.mu.Unlock()
	if err := w.setupVolumes(ctx, pod, facts); err != nil {
		return nil, "", &sandboxError{"FailedMount", err.Error()}
	}
	if err := w.host.Devices.Prepare(ctx, pod); err != nil {
		return nil, "", &sandboxError{"FailedPrepareDynamicResources", "Failed to prepare dynamic resources: " + err.Error()}
	}
	cfg, err := w.sandboxConfig(ctx, pod, attempt)
	if err != nil {
		return nil, "", noSandbox(err)
	}
	if !w.host.Node.Hollow {
		if err := os.MkdirAll(cfg.LogDirectory, 0o755); err != nil {
			return nil, "", noSandbox(err)
		}
	}
	handler, err := w.host.runtimeHandler(ctx, pod)
	if err != nil {
		return nil, "", noSandbox(err)
	}
	call, cancel := w.host.Tasks.Steady(ctx)
	defer cancel()
	id, err := w.host.Runtime.RunPodSandbox(call, cfg, handler)
	if err != nil {
		w.forgetSandboxes()
		if why := w.host.Self.NetworkProblem(ctx); why != "" && !pod.Spec.HostNetwork {
			return nil, "", &sandboxError{"NetworkNotReady", "network is not ready: " + why}
		}
		return nil, "", noSandbox(err)
	}
	return cfg, id, nil
}

// forgetSandboxes makes the next look ask the runtime which sandboxes the pod has.
func (w *Worker) forgetSandboxes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.sandboxes = nil
}

// sandboxConfig translates the pod, with its own user namespace where it asks for one.
func (w *Worker) sandboxConfig(ctx context.Context, pod *corev1.Pod, attempt uint32) (*cri.PodSandboxConfig, error) {
	n, err := w.nodeFor(ctx, pod)
	if err != nil {
		return nil, err
	}
	return podspec.Sandbox(pod, n, attempt)
}

// nodeFor returns what the translation of this pod needs to know.
func (w *Worker) nodeFor(ctx context.Context, pod *corev1.Pod) (*podspec.Node, error) {
	n := &podspec.Node{LogDir: w.host.Node.LogDir, SeccompDir: w.host.Node.SeccompDir, Capacity: w.host.Node.Capacity, DNS: w.host.Node.DNS}
	w.mu.Lock()
	n.CgroupParent = w.made.cgroup
	w.mu.Unlock()
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		var err error
		if n.UserNamespace, err = w.userNamespace(ctx, pod); err != nil {
			return nil, err
		}
	}
	return n, nil
}
