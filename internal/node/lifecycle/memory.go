package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Back-off of crashing containers and failing image pulls: Kubernetes' figures.
const (
	backoffInitial = 10 * time.Second
	backoffMax     = 300 * time.Second
	backoffReset   = 10 * time.Minute
)

// Reasons a container waits with.
const (
	ReasonContainerCreating = "ContainerCreating"
	ReasonPodInitializing   = "PodInitializing"
	ReasonCrashLoop         = "CrashLoopBackOff"
	ReasonErrImagePull      = "ErrImagePull"
	ReasonImagePullBackOff  = "ImagePullBackOff"
	ReasonErrImageNeverPull = "ErrImageNeverPull"
	ReasonConfigError       = "CreateContainerConfigError"
	ReasonCreateError       = "CreateContainerError"
	ReasonRunError          = "RunContainerError"
	ReasonPostStartError    = "PostStartHookError"
)

// Waiting says why a container does not run.
type Waiting struct {
	Reason, Message string
}

// pullShown is how long a failed pull is shown as ErrImagePull before it becomes ImagePullBackOff.
const pullShown = 3 * time.Second

// Backoff doubles a delay from 10 s to 300 s and forgets after 10 quiet minutes.
type Backoff struct {
	Delay time.Duration // 0: nothing failed yet
	Since time.Time     // when Delay was last raised
}

// Next raises the delay; at is when the failure happened.
func (b Backoff) Next(at, now time.Time) Backoff {
	switch {
	case b.Delay == 0 || at.Sub(b.Since) > backoffReset:
		b.Delay = backoffInitial
	default:
		b.Delay = min(2*b.Delay, backoffMax)
	}
	b.Since = now
	return b
}

// Until returns when the failure at at may be followed by another try.
func (b Backoff) Until(at time.Time) time.Time {
	if b.Delay == 0 || at.Sub(b.Since) > backoffReset {
		return at
	}
	return at.Add(b.Delay)
}

// ContainerMemory is what the agent remembers of one container.
type ContainerMemory struct {
	Crash   Backoff   // restarts of a container that exits
	Pull    Backoff   // image pulls
	Waiting Waiting   // why the last try to start it failed
	Failed  time.Time // when that was
	RetryAt time.Time // no try before
	// Resized is the run that was stopped to be started again with other resources: no crash.
	Resized string
	// PostStart is true while the postStart hook runs: the container does not count as started.
	PostStart bool
}

// Failure ends a pod for a reason of the node's: refused, out of time, evicted.
type Failure struct {
	Reason, Message string
}

// Memory is what the agent remembers of a pod between two looks, and what neither API nor runtime tells. It is lost with the
// agent; nothing in it is needed to find the pod's state again.
type Memory struct {
	Containers map[string]*ContainerMemory
	// SandboxRetryAt and SandboxBackoff delay the next try after a sandbox (or its volumes) failed.
	SandboxRetryAt time.Time
	SandboxBackoff Backoff
	// Resize is where a change of the pod's resources stands.
	Resize Resize
	// Failure is set when the node itself ended the pod.
	Failure *Failure
	// Hurry says that the pod is not to be given its grace: the node cannot wait.
	Hurry bool
	// Terminating is when the end of the pod was decided; zero before.
	Terminating time.Time
	// Gone is true once the API no longer has such a pod (or another of the same name).
	Gone bool
	// StartTime is when this agent first saw the pod, the status' startTime unless the API has one.
	StartTime time.Time
	// TornDown is true once sandboxes are stopped and volumes, cgroups gone; Removed once nothing is left in the runtime.
	TornDown, Removed bool
}

// Container returns the memory of the container named, making it where needed.
func (m *Memory) Container(name string) *ContainerMemory {
	if m.Containers == nil {
		m.Containers = map[string]*ContainerMemory{}
	}
	c := m.Containers[name]
	if c == nil {
		c = &ContainerMemory{}
		m.Containers[name] = c
	}
	return c
}

// peek returns the memory of the container named, for reading.
func (m *Memory) peek(name string) ContainerMemory {
	if c := m.Containers[name]; c != nil {
		return *c
	}
	return ContainerMemory{}
}

// Health is what the probes say about one running container.
type Health struct {
	// Started: the startup probe has succeeded (or there is none); Ready: the readiness probe succeeds (or there is none).
	Started, Ready bool
	// Failed names the probe that asks for a restart: "liveness", "startup" or "".
	Failed string
}

// Busy says what is being done for the pod right now, so that it is not started twice.
type Busy struct {
	Sandbox bool // a sandbox is being made
	Start   bool // containers are being started
	// Stopping holds, by container ID, until when the container is given.
	Stopping map[string]time.Time
	Teardown bool
}

// Input is everything a decision is made from.
type Input struct {
	Pod      *corev1.Pod
	Observed *Observed
	Memory   *Memory
	Health   map[string]Health // by container ID; only running containers with probes
	Busy     Busy
	Now      time.Time
	Node     Node
}

// Node is what a pod's status says about its node.
type Node struct {
	IPs []string
	// Runtime is the name by which the container runtime calls itself (CRI's VersionResponse.runtime_name).
	Runtime string
	// RecursiveReadOnly reports whether the runtime can make mounts read-only with what is below them.
	RecursiveReadOnly bool
}

// ContainerID returns what a container is called in a pod's status: a URL whose scheme is the runtime's name
// (https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodStatus, containerStatuses.containerID).
func (n Node) ContainerID(id string) string { return n.Runtime + "://" + id }

// health returns what is known of a running container.
func (in *Input) health(c *Container) Health {
	h, ok := in.Health[c.ID]
	if !ok {
		h = Health{Started: true, Ready: true}
	}
	if in.Memory.peek(c.Name).PostStart {
		h.Started, h.Ready = false, false
	}
	return h
}
