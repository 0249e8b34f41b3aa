package node

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// stop begins to end a container: preStop hook, then the stop signal, then SIGKILL, all within its grace. w.mu must be held.
func (w *worker) stop(ctx context.Context, pod *corev1.Pod, s lifecycle.Stop) {
	c := podspec.FindContainer(pod, s.Name)
	if s.Probe {
		s.Grace = w.probeGrace(s)
	}
	if cancel := w.stops[s.ID]; cancel != nil {
		cancel() // the earlier, slower stop
	}
	ctx, cancel := context.WithCancel(ctx)
	if w.stops == nil {
		w.stops = map[string]context.CancelFunc{}
	}
	w.stops[s.ID] = cancel
	until := time.Now().Add(s.Grace)
	if s.Resize {
		w.mem.Container(s.Name).Resized = s.ID
	}
	w.setStopping(s.ID, until)
	if !s.Hurry {
		w.a.events.Normal(pod, s.Name, "Killing", s.Message)
	}
	ok := w.a.tasks.Go(func() {
		defer cancel()
		w.end(ctx, c, s, until)
		w.mu.Lock()
		defer w.mu.Unlock()
		if ctx.Err() != nil {
			return // another stop took over, or the agent ends
		}
		delete(w.stops, s.ID)
		w.setStopping(s.ID, time.Time{})
		w.obs = nil
		w.looks++
		w.notifyLocked()
	})
	if !ok {
		cancel()
	}
}

// setStopping changes busy.Stopping by replacing it: plans in progress may read the old map. w.mu must be held.
func (w *worker) setStopping(id string, until time.Time) {
	next := maps.Clone(w.busy.Stopping)
	if next == nil {
		next = map[string]time.Time{}
	}
	if until.IsZero() {
		delete(next, id)
	} else {
		next[id] = until
	}
	w.busy.Stopping = next
}

// probeGrace returns the grace of the probe that failed, if it has its own (KEP-2238). w.mu must be held.
func (w *worker) probeGrace(s lifecycle.Stop) time.Duration {
	t := w.trackers[s.ID]
	if t == nil {
		return s.Grace
	}
	k := probe.Liveness
	if t.Health().Failed == probe.Startup.String() {
		k = probe.Startup
	}
	if p := t.Probe(k); p != nil && p.TerminationGracePeriodSeconds != nil {
		return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
	}
	return s.Grace
}

// end stops the container; a runtime that is away is asked again.
func (w *worker) end(ctx context.Context, c *corev1.Container, s lifecycle.Stop, until time.Time) {
	if c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil && !s.Hurry {
		if err := w.hook(ctx, c.Lifecycle.PreStop, c, s.ID, s.Grace); err != nil && ctx.Err() == nil {
			w.a.events.Warning(w.podNow(), s.Name, "FailedPreStopHook", "PreStopHook failed: "+err.Error())
		}
	}
	for ctx.Err() == nil {
		// What is left of the grace; at least two seconds after a long hook, as Kubernetes gives.
		left := time.Until(until)
		if c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
			left = max(left, 2*time.Second)
		}
		err := w.a.rt.StopContainer(ctx, s.ID, max(left, 0))
		if err == nil || runtime.IsNotFound(err) {
			return
		}
		if ctx.Err() == nil && !runtime.IsUnavailable(err) {
			w.a.log.Warn("stopping a container failed, trying again", "pod", w.key, "container", s.Name, "err", err)
		}
		task.Pause(ctx, time.Second)
	}
}

func (w *worker) podNow() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// hook runs a life-cycle hook. A timeout of zero means none but ctx.
func (w *worker) hook(ctx context.Context, h *corev1.LifecycleHandler, c *corev1.Container, id string, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	switch {
	case h.Exec != nil:
		r, err := w.a.rt.ExecSync(ctx, id, h.Exec.Command, timeout)
		if err != nil {
			return err
		}
		if r.ExitCode != 0 {
			return fmt.Errorf("command %q exited with %d: %s", h.Exec.Command, r.ExitCode, bytes.TrimSpace(append(r.Stderr, r.Stdout...)))
		}
		return nil
	case h.HTTPGet != nil:
		w.mu.Lock()
		t := probe.Target{ContainerID: id, PodIP: w.podIP(), Container: c}
		w.mu.Unlock()
		if timeout == 0 {
			timeout = time.Minute
		}
		code, _, err := w.a.prober.Get(ctx, h.HTTPGet, timeout, t)
		if err == nil && (code < 200 || code >= 400) {
			err = fmt.Errorf("HTTP status %d", code)
		}
		return err
	case h.Sleep != nil:
		task.Pause(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return nil
	}
	return fmt.Errorf("container %s: a hook needs exec, httpGet or sleep", c.Name)
}
