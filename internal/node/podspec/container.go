package podspec

import (
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// LogPath returns a container's log file below its pod's log directory.
func LogPath(container string, attempt int32) string {
	return filepath.Join(container, strconv.Itoa(int(attempt))+".log")
}

// Container returns the configuration of one container. image is what the runtime has under the container's image name.
func Container(pod *corev1.Pod, c *corev1.Container, n *Node, attempt int32, image *cri.Image, env []*cri.KeyValue, mounts []*cri.Mount) (*cri.ContainerConfig, error) {
	cfg := &cri.ContainerConfig{
		Metadata:   &cri.ContainerMetadata{Name: c.Name, Attempt: uint32(attempt)},
		Image:      &cri.ImageSpec{Image: image.GetId(), UserSpecifiedImage: c.Image},
		WorkingDir: c.WorkingDir, Envs: env, Mounts: mounts, LogPath: LogPath(c.Name, attempt),
		Labels: map[string]string{lifecycle.LabelPodName: pod.Name, lifecycle.LabelPodNamespace: pod.Namespace,
			lifecycle.LabelPodUID: string(pod.UID), lifecycle.LabelContainerName: c.Name},
		Annotations: map[string]string{lifecycle.AnnotationHash: lifecycle.Hash(c), lifecycle.AnnotationRestartCount: strconv.Itoa(int(attempt)),
			lifecycle.AnnotationMessagePath: c.TerminationMessagePath, lifecycle.AnnotationMessagePolicy: string(c.TerminationMessagePolicy)},
		Stdin: c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
	}
	if cfg.Image.Image == "" {
		cfg.Image.Image = c.Image
	}
	values := make(map[string]string, len(env))
	for _, kv := range env {
		values[kv.Key] = string(kv.Value)
	}
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	for _, a := range c.Command {
		cfg.Command = append(cfg.Command, Expand(a, lookup))
	}
	for _, a := range c.Args {
		cfg.Args = append(cfg.Args, Expand(a, lookup))
	}
	ns := namespaces(pod, n)
	if id := targetOf(pod, c.Name); id != "" && !pod.Spec.HostPID && !isTrue(pod.Spec.ShareProcessNamespace) {
		ns.Pid = cri.NamespaceMode_TARGET // the caller fills TargetId
	}
	cfg.Linux = &cri.LinuxContainerConfig{Resources: ContainerResources(pod, c, n.Capacity), SecurityContext: containerSecurity(pod, c, n, ns)}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		if s, ok := cri.Signal_value[string(*c.Lifecycle.StopSignal)]; ok {
			cfg.StopSignal = cri.Signal(s)
		}
	}
	return cfg, nil
}

// targetOf returns the container whose process namespace an ephemeral container asks for, or "".
func targetOf(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			return e.TargetContainerName
		}
	}
	return ""
}

// Target returns the container whose process namespace the ephemeral container name joins, or "".
func Target(pod *corev1.Pod, name string) string { return targetOf(pod, name) }
