package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/logs"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// configRetry is how long a container whose configuration cannot be made (a missing Secret, a failed create) waits for another try.
const configRetry = 10 * time.Second

// noneMounted stands for the volumes of a pod that has none. It is never written to.
var noneMounted = map[string]volume.Mounted{}

// waitError is a failure to start a container, with the reason its status shows.
type waitError struct {
	reason, message string
	retry           time.Duration
}

func (e *waitError) Error() string { return e.message }

// startAll starts containers in order, as their postStart hooks may rely on it.
func (w *worker) startAll(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed, starts []lifecycle.Start) {
	w.mu.Lock()
	missing := w.volumes == nil
	facts := w.facts()
	w.mu.Unlock()
	if missing { // the agent was restarted
		w.a.sources.use(w, pod)
		if err := w.setupVolumes(ctx, pod, facts); err != nil {
			w.a.events.warning(pod, "", "FailedMount", err.Error())
			pause(ctx, time.Second)
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
}

// started notes how a start went.
func (w *worker) started(c *corev1.Container, s *lifecycle.Start, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.mem.Container(c.Name)
	if err == nil {
		m.Waiting, m.RetryAt, m.Pull = lifecycle.Waiting{}, time.Time{}, lifecycle.Backoff{}
		return
	}
	now := time.Now()
	var we *waitError
	if !errors.As(err, &we) {
		we = &waitError{lifecycle.ReasonRunError, err.Error(), configRetry}
	}
	m.Waiting, m.Failed, m.RetryAt = lifecycle.Waiting{Reason: we.reason, Message: we.message}, now, now.Add(we.retry)
	if we.reason == lifecycle.ReasonErrImagePull {
		m.Pull = m.Pull.Next(now, now)
		m.RetryAt = m.Pull.Until(now)
	}
	w.a.log.Info("container not started", "pod", w.key, "container", c.Name, "reason", we.reason, "err", we.message)
}

// startOne brings one container from nothing to running: image, configuration, create, start, postStart.
func (w *worker) startOne(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed, c *corev1.Container, s *lifecycle.Start) error {
	rt := w.a.rt
	if s.Replace != "" {
		if err := rt.RemoveContainer(ctx, s.Replace); err != nil {
			return &waitError{lifecycle.ReasonCreateError, err.Error(), time.Second}
		}
	}
	sb := obs.Sandbox()
	sbc, n, err := w.sandboxFor(ctx, pod, sb)
	if err != nil {
		return &waitError{lifecycle.ReasonConfigError, err.Error(), configRetry}
	}
	image, err := w.a.images.ensure(ctx, pod, c, sbc)
	if err != nil {
		return err
	}
	cfg, err := w.containerConfig(ctx, pod, c, s, n, image, obs)
	if err != nil {
		w.a.events.warning(pod, c.Name, "Failed", "Error: "+err.Error())
		return &waitError{lifecycle.ReasonConfigError, err.Error(), configRetry}
	}
	call, cancel := w.a.steady(ctx)
	defer cancel()
	id, err := rt.CreateContainer(call, sb.ID, cfg, sbc)
	if err != nil {
		if ctx.Err() == nil {
			w.a.events.warning(pod, c.Name, "Failed", "Error: "+err.Error())
		}
		return &waitError{lifecycle.ReasonCreateError, err.Error(), configRetry}
	}
	w.a.events.normal(pod, c.Name, "Created", "Created container: "+c.Name)
	w.mu.Lock()
	m := w.mem.Container(c.Name)
	m.Restarted(s.Last, time.Now())
	hook := c.Lifecycle != nil && c.Lifecycle.PostStart != nil
	m.PostStart = hook
	w.mu.Unlock()
	if err := rt.StartContainer(call, id); err != nil {
		if ctx.Err() == nil {
			w.a.events.warning(pod, c.Name, "Failed", "Error: "+err.Error())
		}
		w.setPostStart(c.Name, false)
		return &waitError{lifecycle.ReasonRunError, err.Error(), time.Second}
	}
	w.a.events.normal(pod, c.Name, "Started", "Started container "+c.Name)
	if hook {
		defer w.setPostStart(c.Name, false)
		return w.postStart(ctx, pod, c, id)
	}
	return nil
}

func (w *worker) setPostStart(name string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mem.Container(name).PostStart = on
}

// postStart runs the hook; a container whose hook fails is killed and, by its restart policy, started again.
func (w *worker) postStart(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string) error {
	w.invalidate() // the status shows that it runs
	err := w.hook(ctx, c.Lifecycle.PostStart, c, id, 0)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	w.a.events.warning(pod, c.Name, "FailedPostStartHook", "PostStartHook failed: "+err.Error())
	w.a.events.normal(pod, c.Name, "Killing", "FailedPostStartHook")
	if err := w.a.rt.StopContainer(ctx, id, lifecycle.Grace(pod)); err != nil {
		w.a.log.Warn("stopping a container whose postStart hook failed", "pod", w.key, "container", c.Name, "err", err)
	}
	return &waitError{lifecycle.ReasonPostStartError, err.Error(), 0}
}

// sandboxFor returns the configuration of the running sandbox; after a restart of the agent it is made again.
func (w *worker) sandboxFor(ctx context.Context, pod *corev1.Pod, sb *lifecycle.Sandbox) (*cri.PodSandboxConfig, *podspec.Node, error) {
	if w.restoreParent(pod) {
		parent, err := w.a.cgroups.Setup(string(pod.UID), podspec.ForPod(pod))
		if err != nil {
			return nil, nil, err
		}
		w.mu.Lock()
		w.parent = parent
		w.mu.Unlock()
	}
	n, err := w.nodeFor(ctx, pod)
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	cfg := w.sandbox
	w.mu.Unlock()
	if cfg == nil || cfg.Metadata.Attempt != sb.Attempt {
		if cfg, err = podspec.Sandbox(pod, n, sb.Attempt); err != nil {
			return nil, nil, err
		}
		w.mu.Lock()
		w.sandbox = cfg
		w.mu.Unlock()
	}
	return cfg, n, nil
}

func (w *worker) restoreParent(pod *corev1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.parent == "" && !w.a.cfg.Hollow
}

// containerConfig makes the CRI configuration of one run.
func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *corev1.Container, s *lifecycle.Start, n *podspec.Node, image *cri.Image, obs *lifecycle.Observed) (*cri.ContainerConfig, error) {
	if err := podspec.VerifyNonRoot(pod, c, image); err != nil {
		return nil, err
	}
	w.mu.Lock()
	facts, volumes := w.facts(), w.volumes
	w.mu.Unlock()
	if sb := obs.Sandbox(); !pod.Spec.HostNetwork && sb != nil {
		facts.PodIPs = sb.IPs
	}
	env, err := podspec.Env(ctx, pod, c, w.a.sources, facts)
	if err != nil {
		return nil, err
	}
	mounts, err := w.a.volumes.Mounts(pod, c, volumes, env)
	if err != nil {
		return nil, err
	}
	if mounts, err = w.ownMounts(pod, c, s.Attempt, facts, mounts); err != nil {
		return nil, err
	}
	if n.UserNamespace != nil {
		for _, m := range mounts {
			m.UidMappings, m.GidMappings = n.UserNamespace.Uids, n.UserNamespace.Gids
		}
	}
	cfg, err := podspec.Container(pod, c, n, s.Attempt, image, env, mounts)
	if err != nil {
		return nil, err
	}
	if w.a.cgroups.V2() && !w.a.cfg.Hollow {
		// A container out of memory is killed as a whole, not process by process.
		cfg.Linux.Resources.Unified = map[string]string{"memory.oom.group": "1"}
	}
	if target := podspec.Target(pod, c.Name); target != "" {
		run := obs.Newest(target)
		if run == nil || run.State != lifecycle.Running {
			return nil, fmt.Errorf("target container %q is not running", target)
		}
		cfg.Linux.SecurityContext.NamespaceOptions.TargetId = run.ID
	}
	return cfg, nil
}

// ownMounts adds /etc/hosts and the termination message file, unless the container mounts something there itself.
func (w *worker) ownMounts(pod *corev1.Pod, c *corev1.Container, attempt int32, facts podspec.Facts, mounts []*cri.Mount) ([]*cri.Mount, error) {
	taken := func(path string) bool {
		for _, m := range mounts {
			if m.ContainerPath == path {
				return true
			}
		}
		return false
	}
	if w.a.cfg.Hollow {
		return mounts, nil
	}
	if !taken("/etc/hosts") {
		var own []byte
		if pod.Spec.HostNetwork {
			own, _ = os.ReadFile("/etc/hosts")
		}
		text, err := podspec.Hosts(pod, facts.PodIPs, w.a.cfg.ClusterDomain, own)
		if err != nil {
			return nil, err
		}
		path, err := w.a.volumes.Hosts(string(pod.UID), text)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, &cri.Mount{ContainerPath: "/etc/hosts", HostPath: path})
	}
	if p := c.TerminationMessagePath; p != "" && !taken(p) {
		path, err := w.a.volumes.MessageFile(string(pod.UID), c.Name, attempt)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, &cri.Mount{ContainerPath: p, HostPath: path})
	}
	return mounts, nil
}

func removeLog(path string) error { return logs.RemoveRun(path) }
