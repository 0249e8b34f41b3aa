package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// apply begins what the plan asks for. w.mu must be held.
func (w *Worker) apply(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed, p *lifecycle.Plan) {
	for i := range p.Stop {
		w.stop(ctx, pod, p.Stop[i])
	}
	switch {
	case p.Sandbox:
		if len(p.StopSandboxes) > 0 && !w.work.busy.Sandbox {
			w.host.Events.Normal(pod, "", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
		}
		w.begin(ctx, &w.work.busy.Sandbox, func(ctx context.Context) { w.makeSandbox(ctx, pod, p.Attempt, p.StopSandboxes) })
	case len(p.Start) > 0:
		w.begin(ctx, &w.work.busy.Start, func(ctx context.Context) { w.startAll(ctx, pod, obs, p.Start) })
	case p.Resize && !p.Terminating:
		w.begin(ctx, &w.work.busy.Start, func(ctx context.Context) { w.resizeAll(ctx, pod, obs) })
	case p.Teardown:
		w.begin(ctx, &w.work.busy.Teardown, func(ctx context.Context) { w.teardown(ctx, obs) })
	case p.Remove:
		w.begin(ctx, &w.work.busy.Teardown, func(ctx context.Context) { w.remove(ctx, obs) })
	case w.needsVolumes(obs, p):
		w.begin(ctx, &w.work.busy.Start, func(ctx context.Context) { w.refreshVolumes(ctx, pod) })
	case len(p.Prune)+len(p.PruneSandboxes) > 0:
		w.begin(ctx, &w.work.busy.Teardown, func(ctx context.Context) { w.prune(ctx, obs, p) })
	}
}

// begin runs an operation that may take long, and looks at the pod again when it is over. busy says meanwhile that it runs. w.mu must be
// held.
func (w *Worker) begin(ctx context.Context, busy *bool, op func(context.Context)) {
	if *busy {
		return
	}
	*busy = true
	ctx, cancel := context.WithCancel(ctx)
	if busy != &w.work.busy.Teardown {
		w.work.cancel = cancel
	}
	ok := w.host.Tasks.Go(func() {
		op(ctx)
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		*busy = false
		w.seen.now = nil
		w.seen.epoch++
		w.notifyLocked()
	})
	if !ok {
		cancel()
	}
}

// facts are what the downward API tells of the pod's place. w.mu must be held.
func (w *Worker) facts() podspec.Facts {
	return podspec.Facts{PodIPs: w.podIPs(), HostIPs: w.host.Node.IPs, Allocatable: w.host.Node.Allocatable}
}
