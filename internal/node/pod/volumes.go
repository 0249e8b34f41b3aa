package pod

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// setupVolumes makes the volumes or brings them up to date.
func (w *Worker) setupVolumes(ctx context.Context, pod *corev1.Pod, facts podspec.Facts) error {
	w.mu.Lock()
	w.made.stale = false
	w.mu.Unlock()
	mounted, renew, err := w.host.Volumes.Setup(ctx, pod, w.host.Sources, facts)
	if err != nil {
		return err
	}
	if mounted == nil {
		mounted = noneMounted
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made.volumes, w.made.renew = mounted, renew
	return nil
}

// needsVolumes reports whether the volumes of a running pod have to be set up again: they changed, a token is due, or the agent was
// restarted. w.mu must be held.
func (w *Worker) needsVolumes(obs *lifecycle.Observed, p *lifecycle.Plan) bool {
	sb := obs.Sandbox()
	return !p.Terminating && !w.work.busy.Start && !w.work.busy.Sandbox && sb != nil && sb.Ready && (w.made.stale || w.made.volumes == nil)
}

func (w *Worker) refreshVolumes(ctx context.Context, pod *corev1.Pod) {
	w.host.Sources.Use(w, pod)
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
	w.host.Events.Warning(w.pod, "", "FailedMount", err.Error())
	if w.made.volumes == nil {
		w.made.volumes = noneMounted // tried; containers that run keep what they have
	}
	w.made.renew = time.Now().Add(10 * time.Second)
}
