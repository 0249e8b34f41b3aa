package pod

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/task"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// noneMounted stands for the volumes of a pod that has none. It is never written to.
var noneMounted = map[string]volume.Mounted{}

// startAll starts containers in order, as their postStart hooks may rely on it.
func (w *Worker) startAll(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed, starts []lifecycle.Start) {
	w.mu.Lock()
	missing := w.made.volumes == nil
	facts := w.facts()
	w.mu.Unlock()
	if missing { // the agent was restarted
		w.host.Sources.Use(w, pod)
		if err := w.setupVolumes(ctx, pod, facts); err != nil {
			w.host.Events.Warning(pod, "", "FailedMount", err.Error())
			task.Pause(ctx, time.Second)
			return
		}
	}
	for i := range starts {
		s := &starts[i]
		if ctx.Err() != nil {
			return
		}
		c := podspec.FindContainer(pod, s.Name)
		if c == nil {
			continue
		}
		err := w.startOne(ctx, pod, obs, c, s)
		if ctx.Err() != nil {
			return
		}
		w.started(c, s, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made.sandbox = nil // it takes as much memory as the rest of the worker, and is quickly made again for the next start
}

// started notes how a start went.
func (w *Worker) started(c *corev1.Container, s *lifecycle.Start, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.mem.Container(c.Name)
	if err == nil {
		m.Waiting, m.RetryAt, m.Pull = lifecycle.Waiting{}, time.Time{}, lifecycle.Backoff{}
		return
	}
	now := time.Now()
	var we *lifecycle.StartError
	if !errors.As(err, &we) {
		we = &lifecycle.StartError{Reason: lifecycle.ReasonRunError, Message: err.Error(), Retry: lifecycle.ConfigRetry}
	}
	m.Waiting, m.Failed, m.RetryAt = lifecycle.Waiting{Reason: we.Reason, Message: we.Message}, now, now.Add(we.Retry)
	if we.Reason == lifecycle.ReasonErrImagePull {
		m.Pull = m.Pull.Next(now, now)
		m.RetryAt = m.Pull.Until(now)
	}
	w.host.Log.Info("container not started", "pod", w.key, "container", c.Name, "reason", we.Reason, "err", we.Message)
}

// startOne brings one container from nothing to running: image, configuration, create, start, postStart.
func (w *Worker) startOne(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed, c *corev1.Container, s *lifecycle.Start) error {
	rt := w.host.Runtime
	if s.Replace != "" {
		if err := rt.RemoveContainer(ctx, s.Replace); err != nil {
			return &lifecycle.StartError{Reason: lifecycle.ReasonCreateError, Message: err.Error(), Retry: time.Second}
		}
	}
	sb := obs.Sandbox()
	sbc, n, err := w.sandboxFor(ctx, pod, sb)
	if err != nil {
		return &lifecycle.StartError{Reason: lifecycle.ReasonConfigError, Message: err.Error(), Retry: lifecycle.ConfigRetry}
	}
	image, err := w.host.Images.Ensure(ctx, pod, c, sbc)
	if err != nil {
		return err
	}
	files, err := w.host.Images.EnsureVolumes(ctx, pod, sbc)
	if err != nil {
		return err
	}
	cfg, err := w.containerConfig(ctx, pod, c, s, n, image, files, obs)
	if err != nil {
		w.host.Events.Warning(pod, c.Name, "Failed", "Error: "+err.Error())
		return &lifecycle.StartError{Reason: lifecycle.ReasonConfigError, Message: err.Error(), Retry: lifecycle.ConfigRetry}
	}
	call, cancel := w.host.Tasks.Steady(ctx)
	defer cancel()
	id, err := rt.CreateContainer(call, sb.ID, cfg, sbc)
	if err != nil {
		if ctx.Err() == nil {
			w.host.Events.Warning(pod, c.Name, "Failed", "Error: "+err.Error())
		}
		return &lifecycle.StartError{Reason: lifecycle.ReasonCreateError, Message: err.Error(), Retry: lifecycle.ConfigRetry}
	}
	w.host.Events.Normal(pod, c.Name, "Created", "Created container: "+c.Name)
	w.mu.Lock()
	m := w.mem.Container(c.Name)
	m.Restarted(s.Last, time.Now())
	hook := c.Lifecycle != nil && c.Lifecycle.PostStart != nil
	m.PostStart = hook
	w.mu.Unlock()
	if err := rt.StartContainer(call, id); err != nil {
		if ctx.Err() == nil {
			w.host.Events.Warning(pod, c.Name, "Failed", "Error: "+err.Error())
		}
		w.setPostStart(c.Name, false)
		return &lifecycle.StartError{Reason: lifecycle.ReasonRunError, Message: err.Error(), Retry: time.Second}
	}
	w.host.Events.Normal(pod, c.Name, "Started", "Started container "+c.Name)
	if hook {
		defer w.setPostStart(c.Name, false)
		return w.postStart(ctx, pod, c, id)
	}
	return nil
}

func (w *Worker) setPostStart(name string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mem.Container(name).PostStart = on
}

// postStart runs the hook; a container whose hook fails is killed and, by its restart policy, started again.
func (w *Worker) postStart(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string) error {
	w.invalidate() // the status shows that it runs
	err := w.hook(ctx, c.Lifecycle.PostStart, c, id, 0)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	w.host.Events.Warning(pod, c.Name, "FailedPostStartHook", "PostStartHook failed: "+err.Error())
	w.host.Events.Normal(pod, c.Name, "Killing", "FailedPostStartHook")
	if err := w.host.Runtime.StopContainer(ctx, id, lifecycle.Grace(pod)); err != nil {
		w.host.Log.Warn("stopping a container whose postStart hook failed", "pod", w.key, "container", c.Name, "err", err)
	}
	return &lifecycle.StartError{Reason: lifecycle.ReasonPostStartError, Message: err.Error(), Retry: 0}
}
