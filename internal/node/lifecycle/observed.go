package lifecycle

import (
	"sort"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels and annotations on sandboxes and containers, by which an agent that was restarted finds its pods again. They are
// those that the kubelet uses, so that crictl and others show names.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	AnnotationHash          = "io.kubernetes.container.hash"
	AnnotationRestartCount  = "io.kubernetes.container.restartCount"
	AnnotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	AnnotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	// AnnotationRound is Knarr's own: in which of the pod's rounds the container runs (round.go); none for round 0.
	AnnotationRound = "knarr.io/container.round"
)

// State is a container's state as the runtime sees it.
type State int

// Container states.
const (
	Created State = iota
	Running
	Exited
	Unknown
)

// Sandbox is one sandbox of a pod.
type Sandbox struct {
	ID        string
	Attempt   uint32
	Ready     bool
	CreatedAt time.Time
	IPs       []string
}

// Container is one run of a container: a restarted container is a new one.
type Container struct {
	ID, Name, SandboxID              string
	Attempt                          int32 // restarts before this run
	Round                            int32 // restarts of the whole pod before this run (KEP-5532)
	State                            State
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Reason, Message                  string
	Image, ImageID                   string
	Hash                             string
	User                             *cri.ContainerUser
	Resources                        *cri.LinuxContainerResources
}

// Observed is what the runtime shows of one pod, newest first.
type Observed struct {
	Sandboxes  []Sandbox
	Containers []Container
}

// Sort puts the newest first.
func (o *Observed) Sort() {
	sort.SliceStable(o.Sandboxes, func(i, j int) bool {
		a, b := &o.Sandboxes[i], &o.Sandboxes[j]
		if !a.CreatedAt.Equal(b.CreatedAt) {
			return a.CreatedAt.After(b.CreatedAt)
		}
		return a.Attempt > b.Attempt
	})
	sort.SliceStable(o.Containers, func(i, j int) bool {
		a, b := &o.Containers[i], &o.Containers[j]
		if !a.CreatedAt.Equal(b.CreatedAt) {
			return a.CreatedAt.After(b.CreatedAt)
		}
		return a.Attempt > b.Attempt
	})
}

// Sandbox returns the newest sandbox or nil.
func (o *Observed) Sandbox() *Sandbox {
	if len(o.Sandboxes) == 0 {
		return nil
	}
	return &o.Sandboxes[0]
}

// Newest returns the newest run of the container, or nil.
func (o *Observed) Newest(name string) *Container {
	for i := range o.Containers {
		if o.Containers[i].Name == name {
			return &o.Containers[i]
		}
	}
	return nil
}

// Previous returns the run before the newest one, or nil.
func (o *Observed) Previous(name string) *Container {
	seen := false
	for i := range o.Containers {
		if o.Containers[i].Name != name {
			continue
		}
		if seen {
			return &o.Containers[i]
		}
		seen = true
	}
	return nil
}

// ByID returns the container with that ID, or nil.
func (o *Observed) ByID(id string) *Container {
	for i := range o.Containers {
		if o.Containers[i].ID == id {
			return &o.Containers[i]
		}
	}
	return nil
}

// AnyRunning reports whether a container runs or may run.
func (o *Observed) AnyRunning() bool {
	for i := range o.Containers {
		if s := o.Containers[i].State; s == Running || s == Unknown {
			return true
		}
	}
	return false
}

// FromStatus translates a CRI container status.
func FromStatus(s *cri.ContainerStatus, sandboxID string) Container {
	c := Container{
		ID: s.Id, SandboxID: sandboxID, CreatedAt: fromNano(s.CreatedAt), StartedAt: fromNano(s.StartedAt),
		FinishedAt: fromNano(s.FinishedAt), ExitCode: s.ExitCode, Reason: s.Reason, Message: s.Message,
		ImageID: s.ImageId, Hash: s.Annotations[AnnotationHash], User: s.User,
	}
	c.Name = s.Labels[LabelContainerName]
	if s.Metadata != nil {
		if c.Name == "" {
			c.Name = s.Metadata.Name
		}
		c.Attempt = int32(s.Metadata.Attempt)
	}
	if n, err := strconv.Atoi(s.Annotations[AnnotationRestartCount]); err == nil {
		c.Attempt = int32(n)
	}
	c.Round = parseRound(s.Annotations[AnnotationRound])
	if s.Image != nil {
		c.Image = s.Image.UserSpecifiedImage
		if c.Image == "" {
			c.Image = s.Image.Image
		}
	}
	if s.ImageRef != "" {
		c.ImageID = s.ImageRef
	}
	if s.Resources != nil {
		c.Resources = s.Resources.Linux
	}
	switch s.State {
	case cri.ContainerState_CONTAINER_CREATED:
		c.State = Created
	case cri.ContainerState_CONTAINER_RUNNING:
		c.State = Running
	case cri.ContainerState_CONTAINER_EXITED:
		c.State = Exited
	default:
		c.State = Unknown
	}
	return c
}

// FromSandbox translates a CRI sandbox status.
func FromSandbox(s *cri.PodSandboxStatus) Sandbox {
	out := Sandbox{ID: s.Id, Ready: s.State == cri.PodSandboxState_SANDBOX_READY, CreatedAt: fromNano(s.CreatedAt)}
	if s.Metadata != nil {
		out.Attempt = s.Metadata.Attempt
	}
	if s.Network != nil && s.Network.Ip != "" {
		out.IPs = append(out.IPs, s.Network.Ip)
		for _, ip := range s.Network.AdditionalIps {
			out.IPs = append(out.IPs, ip.Ip)
		}
	}
	return out
}

func fromNano(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// IsSidecar reports whether an init container is one that keeps running (KEP-753).
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
