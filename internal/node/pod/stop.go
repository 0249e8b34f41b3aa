package pod

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// stop begins to end a container: preStop hook, then the stop signal, then SIGKILL, all within its grace. w.mu must be held.
func (w *Worker) stop(ctx context.Context, pod *corev1.Pod, s lifecycle.Stop) {
	c := podspec.FindContainer(pod, s.Name)
	if s.Probe {
		s.Grace = w.probeGrace(s)
	}
	if cancel := w.work.stops[s.ID]; cancel != nil {
		cancel() // the earlier, slower stop
	}
	ctx, cancel := context.WithCancel(ctx)
	if w.work.stops == nil {
		w.work.stops = map[string]context.CancelFunc{}
	}
	w.work.stops[s.ID] = cancel
	until := time.Now().Add(s.Grace)
	if s.Resize {
		w.mem.Container(s.Name).Resized = s.ID
	}
	w.setStopping(s.ID, until)
	if !s.Hurry && !w.end.resumed {
		w.host.Events.Normal(pod, s.Name, "Killing", s.Message)
	}
	ok := w.host.Tasks.Go(func() {
		defer cancel()
		w.endContainer(ctx, c, s, until)
		w.mu.Lock()
		defer w.mu.Unlock()
		if ctx.Err() != nil {
			return // another stop took over, or the agent ends
		}
		delete(w.work.stops, s.ID)
		w.setStopping(s.ID, time.Time{})
		w.seen.now = nil
		w.seen.epoch++
		w.notifyLocked()
	})
	if !ok {
		cancel()
	}
}

// setStopping changes busy.Stopping by replacing it: plans in progress may read the old map. w.mu must be held.
func (w *Worker) setStopping(id string, until time.Time) {
	next := maps.Clone(w.work.busy.Stopping)
	if next == nil {
		next = map[string]time.Time{}
	}
	if until.IsZero() {
		delete(next, id)
	} else {
		next[id] = until
	}
	w.work.busy.Stopping = next
}

// probeGrace returns the grace of the probe that failed, if it has its own (KEP-2238). w.mu must be held.
func (w *Worker) probeGrace(s lifecycle.Stop) time.Duration {
	t := w.probes[s.ID]
	if t == nil {
		return s.Grace
	}
	k := probe.Liveness
	if t.Health().Failed == probe.Startup.String() {
		k = probe.Startup
	}
	if p := t.Probe(k); p != nil && p.TerminationGracePeriodSeconds != nil {
		return amount.Seconds(*p.TerminationGracePeriodSeconds)
	}
	return s.Grace
}

// endContainer stops the container; a runtime that is away is asked again.
func (w *Worker) endContainer(ctx context.Context, c *corev1.Container, s lifecycle.Stop, until time.Time) {
	if c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil && !s.Hurry && s.Grace > 0 && w.hookPending(s.ID) {
		err := w.hook(ctx, c.Lifecycle.PreStop, c, s.ID, s.Grace)
		if err != nil && ctx.Err() == nil {
			w.host.Events.Warning(w.Pod(), s.Name, "FailedPreStopHook", "PreStopHook failed: "+err.Error())
		}
		if ctx.Err() == nil {
			w.hookEnded(s.ID)
		}
	}
	for ctx.Err() == nil {
		// What is left of the grace; at least two seconds after a long hook, as Kubernetes gives.
		left := time.Until(until)
		if c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil && s.Grace > 0 {
			left = max(left, 2*time.Second)
		}
		err := w.host.Runtime.StopContainer(ctx, s.ID, max(left, 0))
		if err == nil || runtime.IsNotFound(err) {
			return
		}
		if ctx.Err() == nil && !runtime.IsUnavailable(err) {
			w.host.Log.Warn("stopping a container failed, trying again", "pod", w.key, "container", s.Name, "err", err)
		}
		task.Pause(ctx, time.Second)
	}
}

// Pod returns the pod as the API has it.
func (w *Worker) Pod() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}
