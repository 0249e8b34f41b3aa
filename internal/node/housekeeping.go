package node

import (
	"context"
	"time"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/logs"
	"github.com/knarr-io/knarr/internal/node/task"
)

// imageCheck is how often the disk is looked at for images to remove.
const imageCheck = 5 * time.Minute

// houseKeeping rotates logs that grew too long and removes unused images when the disk fills.
func (a *Agent) houseKeeping(ctx context.Context, now time.Time) {
	if a.cfg.Hollow {
		return
	}
	a.lookForEvictions(ctx, now)
	for _, w := range a.allWorkers() {
		for _, run := range w.runningNow() {
			path := w.logPath(run.Name, run.Attempt)
			_, err := logs.Rotate(path, a.cfg.MaxLogSize, a.cfg.MaxLogFiles, now, func() error { return a.rt.ReopenContainerLog(ctx, run.ID) })
			a.warn("rotating a log", task.Quiet(ctx, err), "pod", w.key, "container", run.Name)
		}
	}
	if now.Sub(a.imagesChecked) >= imageCheck {
		a.imagesChecked = now
		a.warn("removing unused images", task.Quiet(ctx, a.images.Collect(ctx, a.pods(), a.cfg.ImageGCHigh, a.cfg.ImageGCLow, a.diskUsed)))
	}
}

// runningNow returns the pod's running containers.
func (w *worker) runningNow() []lifecycle.Container {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.obs == nil {
		return nil
	}
	var out []lifecycle.Container
	for i := range w.obs.Containers {
		if w.obs.Containers[i].State == lifecycle.Running {
			out = append(out, w.obs.Containers[i])
		}
	}
	return out
}
