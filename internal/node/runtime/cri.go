package runtime

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxMessage is how large an answer may be: ListContainers of a full node with long annotations is megabytes.
	maxMessage = 16 << 20
	// callTimeout bounds the calls that only read or change the runtime's own state. Calls that do work take the
	// caller's ctx alone: a pull may last an hour, and a StopContainer as long as the pod's grace.
	callTimeout = 2 * time.Minute
)

// CRI is a Runtime that speaks CRI v1 over a unix socket.
type CRI struct {
	conn   *grpc.ClientConn
	rt     cri.RuntimeServiceClient
	images cri.ImageServiceClient

	// pollEvery is how often Events lists where the runtime has no event stream.
	pollEvery time.Duration
	// polls is set when the runtime said that it has no event stream.
	polls atomic.Bool
}

var _ Runtime = (*CRI)(nil)

// NewCRI returns a client of the runtime that listens at endpoint, a path or a unix:// URL. It does not wait for the
// runtime: until that listens, calls fail with IsUnavailable.
func NewCRI(endpoint string) (*CRI, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("runtime endpoint %q: want an absolute path or unix:///path of a socket", endpoint)
	}
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		// The socket is on this machine: a runtime that comes back should be seen within a fraction of a second.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// A node without work must not wake up for its idle connection, nor lose it.
		grpc.WithIdleTimeout(0),
	)
	if err != nil {
		return nil, fmt.Errorf("runtime endpoint %q: %w", endpoint, err)
	}
	return &CRI{
		conn:      conn,
		rt:        cri.NewRuntimeServiceClient(conn),
		images:    cri.NewImageServiceClient(conn),
		pollEvery: 2 * time.Second,
	}, nil
}

// Close releases the connection; the containers stay.
func (c *CRI) Close() error { return c.conn.Close() }

// short bounds a call that answers from the runtime's own state.
func short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// Version returns the runtime's name and versions.
func (c *CRI) Version(ctx context.Context) (*cri.VersionResponse, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	return c.rt.Version(ctx, &cri.VersionRequest{Version: "v1"})
}

// Status returns the runtime's conditions, handlers and features.
func (c *CRI) Status(ctx context.Context) (*cri.StatusResponse, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	return c.rt.Status(ctx, &cri.StatusRequest{})
}

// UpdateRuntimeConfig tells the runtime the node's pod CIDR.
func (c *CRI) UpdateRuntimeConfig(ctx context.Context, podCIDR string) error {
	ctx, cancel := short(ctx)
	defer cancel()
	_, err := c.rt.UpdateRuntimeConfig(ctx, &cri.UpdateRuntimeConfigRequest{
		RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: podCIDR}},
	})
	return err
}

// CgroupDriver returns the driver the runtime uses.
func (c *CRI) CgroupDriver(ctx context.Context) (cri.CgroupDriver, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.RuntimeConfig(ctx, &cri.RuntimeConfigRequest{})
	if IsUnimplemented(err) || err == nil && r.GetLinux() == nil {
		return cri.CgroupDriver_CGROUPFS, nil
	}
	return r.GetLinux().GetCgroupDriver(), err
}

// RunPodSandbox creates and starts a sandbox.
func (c *CRI) RunPodSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	r, err := c.rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return r.GetPodSandboxId(), err
}

// StopPodSandbox kills the sandbox's containers and gives back its network.
func (c *CRI) StopPodSandbox(ctx context.Context, sandboxID string) error {
	_, err := c.rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandboxID})
	return ignoreNotFound(err)
}

// RemovePodSandbox removes the sandbox and its containers.
func (c *CRI) RemovePodSandbox(ctx context.Context, sandboxID string) error {
	_, err := c.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandboxID})
	return ignoreNotFound(err)
}

// PodSandboxStatus returns the sandbox's status.
func (c *CRI) PodSandboxStatus(ctx context.Context, sandboxID string) (*cri.PodSandboxStatus, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: sandboxID})
	return r.GetStatus(), err
}

// ListPodSandbox lists sandboxes.
func (c *CRI) ListPodSandbox(ctx context.Context, filter *cri.PodSandboxFilter) ([]*cri.PodSandbox, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: filter})
	return r.GetItems(), err
}

// CreateContainer creates a container in a sandbox.
func (c *CRI) CreateContainer(ctx context.Context, sandboxID string, config *cri.ContainerConfig, sandboxConfig *cri.PodSandboxConfig) (string, error) {
	r, err := c.rt.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: sandboxID, Config: config, SandboxConfig: sandboxConfig})
	return r.GetContainerId(), err
}

// StartContainer starts a created container.
func (c *CRI) StartContainer(ctx context.Context, containerID string) error {
	_, err := c.rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: containerID})
	return err
}

// StopContainer stops a container within grace.
func (c *CRI) StopContainer(ctx context.Context, containerID string, grace time.Duration) error {
	// CRI counts whole seconds; a fraction rounds up, so that a short grace does not become a kill.
	seconds := int64((max(grace, 0) + time.Second - 1) / time.Second)
	_, err := c.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: containerID, Timeout: seconds})
	return ignoreNotFound(err)
}

// RemoveContainer removes a container.
func (c *CRI) RemoveContainer(ctx context.Context, containerID string) error {
	_, err := c.rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: containerID})
	return ignoreNotFound(err)
}

// ContainerStatus returns one container's status.
func (c *CRI) ContainerStatus(ctx context.Context, containerID string) (*cri.ContainerStatus, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: containerID})
	return r.GetStatus(), err
}

// ListContainers lists containers.
func (c *CRI) ListContainers(ctx context.Context, filter *cri.ContainerFilter) ([]*cri.Container, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.ListContainers(ctx, &cri.ListContainersRequest{Filter: filter})
	return r.GetContainers(), err
}

// UpdateContainerResources changes a running container's limits.
func (c *CRI) UpdateContainerResources(ctx context.Context, containerID string, resources *cri.LinuxContainerResources) error {
	ctx, cancel := short(ctx)
	defer cancel()
	_, err := c.rt.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: containerID, Linux: resources})
	return err
}

// ReopenContainerLog makes the runtime open the log file anew.
func (c *CRI) ReopenContainerLog(ctx context.Context, containerID string) error {
	ctx, cancel := short(ctx)
	defer cancel()
	_, err := c.rt.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: containerID})
	return err
}

// ExecSync runs a command in a container and waits for it.
func (c *CRI) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (*ExecResult, error) {
	if timeout > 0 {
		// CRI counts whole seconds and then cleans up; the call's own deadline is only for a runtime that hangs.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout+callTimeout)
		defer cancel()
	}
	seconds := int64((timeout + time.Second - 1) / time.Second)
	r, err := c.rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: containerID, Cmd: cmd, Timeout: seconds})
	if err != nil {
		return nil, err
	}
	return &ExecResult{Stdout: r.GetStdout(), Stderr: r.GetStderr(), ExitCode: r.GetExitCode()}, nil
}

// Exec returns a URL at which to run a command.
func (c *CRI) Exec(ctx context.Context, request *cri.ExecRequest) (string, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.Exec(ctx, request)
	return r.GetUrl(), err
}

// Attach returns a URL at which to attach to a container's process.
func (c *CRI) Attach(ctx context.Context, request *cri.AttachRequest) (string, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.Attach(ctx, request)
	return r.GetUrl(), err
}

// PortForward returns a URL at which to forward ports of a sandbox.
func (c *CRI) PortForward(ctx context.Context, request *cri.PortForwardRequest) (string, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.PortForward(ctx, request)
	return r.GetUrl(), err
}

func ignoreNotFound(err error) error {
	if IsNotFound(err) {
		return nil
	}
	return err
}
