package pod

import (
	"context"
	"fmt"
	"os"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/logs"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// sandboxFor returns the configuration of the running sandbox; after a restart of the agent it is made again.
func (w *Worker) sandboxFor(ctx context.Context, pod *corev1.Pod, sb *lifecycle.Sandbox) (*cri.PodSandboxConfig, *podspec.Node, error) {
	if w.restoreParent(pod) {
		parent, err := w.host.Cgroups.Setup(string(pod.UID), podspec.ForPod(pod))
		if err != nil {
			return nil, nil, err
		}
		w.mu.Lock()
		w.made.cgroup = parent
		w.mu.Unlock()
	}
	n, err := w.nodeFor(ctx, pod)
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	cfg := w.made.sandbox
	w.mu.Unlock()
	if cfg == nil || cfg.Metadata.Attempt != sb.Attempt {
		if cfg, err = podspec.Sandbox(pod, n, sb.Attempt); err != nil {
			return nil, nil, err
		}
		w.mu.Lock()
		w.made.sandbox = cfg
		w.mu.Unlock()
	}
	return cfg, n, nil
}

func (w *Worker) restoreParent(pod *corev1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made.cgroup == "" && !w.host.Node.Hollow
}

// containerConfig makes the CRI configuration of one run. files are the images that are volumes.
func (w *Worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *corev1.Container, s *lifecycle.Start, n *podspec.Node, image *cri.Image, files map[string]string, obs *lifecycle.Observed) (*cri.ContainerConfig, error) {
	if err := podspec.VerifyNonRoot(pod, c, image); err != nil {
		return nil, err
	}
	w.mu.Lock()
	facts, volumes := w.facts(), w.made.volumes
	w.mu.Unlock()
	if sb := obs.Sandbox(); !pod.Spec.HostNetwork && sb != nil {
		facts.PodIPs = sb.IPs
	}
	var inVolumes podspec.Files
	if !w.host.Node.Hollow {
		inVolumes = volume.EnvFiles(volumes)
	}
	env, err := podspec.Env(ctx, pod, c, w.host.Sources, inVolumes, facts)
	if err != nil {
		return nil, err
	}
	mounts, err := w.host.Volumes.Mounts(pod, c, volumes, env)
	if err != nil {
		return nil, err
	}
	if err := w.finishMounts(c, mounts, files); err != nil {
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
	cfg.CDIDevices = w.devices(pod, c)
	if cfg.Devices, err = w.blockDevices(c, volumes); err != nil {
		return nil, err
	}
	if s.Round > 0 { // by it the agent finds again which runs belong together
		cfg.Annotations[lifecycle.AnnotationRound] = strconv.Itoa(int(s.Round))
	}
	if w.host.Cgroups.V2() && !w.host.Node.Hollow {
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

// finishMounts gives images among a container's mounts the names that the runtime knows them by, and says what is read-only with all below it.
func (w *Worker) finishMounts(c *corev1.Container, mounts []*cri.Mount, files map[string]string) (err error) {
	for i, m := range mounts {
		if m.Image != nil {
			m.Image.Image = files[m.Image.Image]
		}
		if m.RecursiveReadOnly, err = lifecycle.RecursiveReadOnly(&c.VolumeMounts[i], w.node().RecursiveReadOnly); err != nil {
			return err
		}
	}
	return nil
}

// blockDevices returns the volumes that a container has as devices.
func (w *Worker) blockDevices(c *corev1.Container, volumes map[string]volume.Mounted) ([]*cri.Device, error) {
	if w.host.Node.Hollow {
		return nil, nil
	}
	return volume.Devices(c, volumes)
}

// devices returns the devices of a container's claims, for the runtime.
func (w *Worker) devices(pod *corev1.Pod, c *corev1.Container) (out []*cri.CDIDevice) {
	for _, id := range w.host.Devices.For(pod, c) {
		out = append(out, &cri.CDIDevice{Name: id})
	}
	return out
}

// ownMounts adds /etc/hosts and the termination message file, unless the container mounts something there itself.
func (w *Worker) ownMounts(pod *corev1.Pod, c *corev1.Container, attempt int32, facts podspec.Facts, mounts []*cri.Mount) ([]*cri.Mount, error) {
	taken := func(path string) bool {
		for _, m := range mounts {
			if m.ContainerPath == path {
				return true
			}
		}
		return false
	}
	if w.host.Node.Hollow {
		return mounts, nil
	}
	if !taken("/etc/hosts") {
		var own []byte
		if pod.Spec.HostNetwork {
			own, _ = os.ReadFile("/etc/hosts")
		}
		text, err := podspec.Hosts(pod, facts.PodIPs, w.host.Node.DNS.ClusterDomain, own)
		if err != nil {
			return nil, err
		}
		path, err := w.host.Volumes.Hosts(string(pod.UID), text)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, &cri.Mount{ContainerPath: "/etc/hosts", HostPath: path})
	}
	if p := c.TerminationMessagePath; p != "" && !taken(p) {
		path, err := w.host.Volumes.MessageFile(string(pod.UID), c.Name, attempt)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, &cri.Mount{ContainerPath: p, HostPath: path})
	}
	return mounts, nil
}

func removeLog(path string) error { return logs.RemoveRun(path) }
