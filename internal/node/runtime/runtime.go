// Package runtime is the agent's view of a container runtime: the [Runtime] interface, a client that speaks CRI v1 to a
// real one ([NewCRI]), and an in-memory one ([NewFake]) for hollow nodes and tests.
//
// What flows through it: the agent's actions go down as CRI messages (k8s.io/cri-api), container events come up through
// [Runtime.Events]. The messages are CRI's own, so that nothing is translated twice and every field of the specification
// is reachable.
//
// What must stay true: both implementations pass the same suite (package runtimetest); calls that remove or stop
// something are idempotent, as CRI demands; an implementation keeps no state that the runtime does not have, so that
// the agent may be killed at any time and find everything again by listing. Tests: TestFakeSuite; TestSuite,
// TestContainersOutliveTheRuntime (internal/node/containerd).
package runtime

import (
	"context"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Event is one change of a container or sandbox. PodSandboxStatus and ContainersStatuses hold the whole pod as the
// runtime saw it when it sent the event; PodSandboxStatus is nil when the sandbox is gone already. For events of a
// sandbox itself, ContainerId is the sandbox's ID.
type Event = cri.ContainerEventResponse

// Runtime runs pods' sandboxes and containers on one node. All calls are safe for concurrent use. Errors carry gRPC
// codes; see [IsNotFound] and [IsUnavailable].
type Runtime interface {
	Sandboxes
	Containers
	Streams
	Stats
	Images

	// Version returns the runtime's name and versions.
	Version(ctx context.Context) (*cri.VersionResponse, error)
	// Status returns the runtime's conditions (RuntimeReady, NetworkReady), its handlers and features.
	Status(ctx context.Context) (*cri.StatusResponse, error)
	// UpdateRuntimeConfig tells the runtime the node's pod CIDR(s), comma separated.
	UpdateRuntimeConfig(ctx context.Context, podCIDR string) error
	// CgroupDriver returns the driver the runtime uses, from CRI RuntimeConfig; CGROUPFS where the runtime does not say.
	CgroupDriver(ctx context.Context) (cri.CgroupDriver, error)

	// Events calls each for every event until ctx is cancelled (then it returns nil) or the stream is lost (then it
	// returns why). It calls ready once, when every later change will be seen: list after ready, not before, and nothing
	// falls in between. After an error, wait, call Events again and list again in its ready. ready and each are called from
	// one goroutine, one after the other; each must not block, because a runtime may hold back all its events for one slow
	// listener.
	Events(ctx context.Context, ready func(), each func(*Event)) error

	// Close releases the connection; the containers stay.
	Close() error
}

// Sandboxes is the part of Runtime that deals with pods' sandboxes.
type Sandboxes interface {
	// RunPodSandbox creates and starts a sandbox. handler is the RuntimeClass handler, empty for the default.
	RunPodSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (sandboxID string, err error)
	// StopPodSandbox kills the sandbox's containers and gives back its network. It succeeds when there is nothing to stop.
	StopPodSandbox(ctx context.Context, sandboxID string) error
	// RemovePodSandbox removes the sandbox and its containers, stopping them first where needed. It succeeds when there is
	// no such sandbox.
	RemovePodSandbox(ctx context.Context, sandboxID string) error
	// PodSandboxStatus returns the sandbox's status, with its addresses; IsNotFound if there is none.
	PodSandboxStatus(ctx context.Context, sandboxID string) (*cri.PodSandboxStatus, error)
	// ListPodSandbox lists sandboxes; a nil filter means all.
	ListPodSandbox(ctx context.Context, filter *cri.PodSandboxFilter) ([]*cri.PodSandbox, error)
}

// Containers is the part of Runtime that deals with containers.
type Containers interface {
	// CreateContainer creates a container in a sandbox. sandboxConfig is the one the sandbox was run with.
	CreateContainer(ctx context.Context, sandboxID string, config *cri.ContainerConfig, sandboxConfig *cri.PodSandboxConfig) (containerID string, err error)
	StartContainer(ctx context.Context, containerID string) error
	// StopContainer sends the stop signal and, after grace, SIGKILL. It returns when the container has exited, and succeeds
	// when it is not running or not there. Zero grace kills at once.
	StopContainer(ctx context.Context, containerID string, grace time.Duration) error
	// RemoveContainer removes a container, killing it where needed. It succeeds when there is none.
	RemoveContainer(ctx context.Context, containerID string) error
	// ContainerStatus returns one container's status; IsNotFound if there is none.
	ContainerStatus(ctx context.Context, containerID string) (*cri.ContainerStatus, error)
	// ListContainers lists containers; a nil filter means all.
	ListContainers(ctx context.Context, filter *cri.ContainerFilter) ([]*cri.Container, error)
	// UpdateContainerResources changes a running container's limits.
	UpdateContainerResources(ctx context.Context, containerID string, resources *cri.LinuxContainerResources) error
	// ReopenContainerLog makes the runtime open the log file anew, after the agent has moved it away.
	ReopenContainerLog(ctx context.Context, containerID string) error
	// ExecSync runs a command in a container and waits for it. A command that ends with a code other than zero is no error.
	// Zero timeout means none; IsDeadlineExceeded tells that the time-out passed.
	ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (*ExecResult, error)
}

// ExecResult is what a command run by ExecSync left.
type ExecResult struct {
	Stdout, Stderr []byte
	ExitCode       int32
}

// Streams is the part of Runtime that gives URLs of its streaming server, each good for one connection.
type Streams interface {
	Exec(ctx context.Context, request *cri.ExecRequest) (url string, err error)
	Attach(ctx context.Context, request *cri.AttachRequest) (url string, err error)
	PortForward(ctx context.Context, request *cri.PortForwardRequest) (url string, err error)
}

// Stats is the part of Runtime that measures.
type Stats interface {
	ContainerStats(ctx context.Context, containerID string) (*cri.ContainerStats, error)
	// ListContainerStats measures many containers in one call; a nil filter means all.
	ListContainerStats(ctx context.Context, filter *cri.ContainerStatsFilter) ([]*cri.ContainerStats, error)
	PodSandboxStats(ctx context.Context, sandboxID string) (*cri.PodSandboxStats, error)
	// ListPodSandboxStats measures all ready sandboxes, with their containers, in one call.
	ListPodSandboxStats(ctx context.Context) ([]*cri.PodSandboxStats, error)
}

// Images is the part of Runtime that deals with images.
type Images interface {
	// PullImage pulls an image and returns its reference by digest (or ID). auth and sandboxConfig may be nil.
	PullImage(ctx context.Context, image *cri.ImageSpec, auth *cri.AuthConfig, sandboxConfig *cri.PodSandboxConfig) (ref string, err error)
	// ImageStatus returns the image, or nil if it is not there.
	ImageStatus(ctx context.Context, image *cri.ImageSpec) (*cri.Image, error)
	// ListImages lists images; a nil filter means all.
	ListImages(ctx context.Context, filter *cri.ImageFilter) ([]*cri.Image, error)
	// RemoveImage removes an image by name or ID. It succeeds when there is none.
	RemoveImage(ctx context.Context, image *cri.ImageSpec) error
	// ImageFsInfo returns what images (and, where told apart, containers) use of which file system.
	ImageFsInfo(ctx context.Context) (*cri.ImageFsInfoResponse, error)
}
