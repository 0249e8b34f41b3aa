package pod

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// teardown stops the sandboxes and gives back what the pod held.
func (w *Worker) teardown(ctx context.Context, obs *lifecycle.Observed) {
	err := func() error {
		for i := range obs.Sandboxes {
			if err := w.host.Runtime.StopPodSandbox(ctx, obs.Sandboxes[i].ID); err != nil && !runtime.IsNotFound(err) {
				return fmt.Errorf("stopping sandbox: %w", err)
			}
		}
		if err := w.host.Devices.Unprepare(ctx, w.uid); err != nil {
			return fmt.Errorf("giving devices back: %w", err)
		}
		if err := w.host.Volumes.Teardown(ctx, string(w.uid)); err != nil {
			return err
		}
		return w.host.Cgroups.Remove(string(w.uid))
	}()
	w.host.Sources.Release(w)
	w.host.Ledger.Release(w.uid)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failedEnd(ctx, err)
		return
	}
	w.mem.TornDown = true
}

// remove removes what is left of a deleted pod in the runtime, and its logs.
func (w *Worker) remove(ctx context.Context, obs *lifecycle.Observed) {
	err := func() error {
		for i := range obs.Sandboxes {
			if err := w.host.Runtime.RemovePodSandbox(ctx, obs.Sandboxes[i].ID); err != nil && !runtime.IsNotFound(err) {
				return fmt.Errorf("removing sandbox: %w", err)
			}
		}
		for i := range obs.Containers {
			if err := w.host.Runtime.RemoveContainer(ctx, obs.Containers[i].ID); err != nil && !runtime.IsNotFound(err) {
				return fmt.Errorf("removing container: %w", err)
			}
		}
		if w.host.Node.Hollow {
			return nil
		}
		return os.RemoveAll(w.logDirectory())
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failedEnd(ctx, err)
		return
	}
	w.mem.Removed = true
}

// failedEnd notes that ending the pod failed; it is tried again. w.mu must be held.
func (w *Worker) failedEnd(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	w.host.Log.Warn("ending a pod failed, trying again", "pod", w.key, "err", err)
	if !w.mem.Gone {
		w.host.Events.Warning(w.pod, "", "FailedKillPod", "error killing pod: "+err.Error())
	}
	w.mu.Unlock()
	task.Pause(ctx, time.Second)
	w.mu.Lock()
}

// prune removes dead runs and sandboxes that nobody needs.
func (w *Worker) prune(ctx context.Context, obs *lifecycle.Observed, p *lifecycle.Plan) {
	for _, id := range p.Prune {
		if c := obs.ByID(id); c != nil && !w.host.Node.Hollow {
			w.host.warn("removing an old log", removeLog(w.LogPath(c.Name, c.Attempt)), "pod", w.key)
		}
		if err := w.host.Runtime.RemoveContainer(ctx, id); err != nil && ctx.Err() == nil {
			w.host.Log.Warn("removing a dead container failed", "pod", w.key, "container", id, "err", err)
			task.Pause(ctx, time.Second)
		}
		w.mu.Lock()
		delete(w.seen.messages, id)
		w.mu.Unlock()
	}
	for _, id := range p.PruneSandboxes {
		if err := w.host.Runtime.RemovePodSandbox(ctx, id); err != nil && ctx.Err() == nil {
			w.host.Log.Warn("removing a dead sandbox failed", "pod", w.key, "sandbox", id, "err", err)
			task.Pause(ctx, time.Second)
		}
	}
}
