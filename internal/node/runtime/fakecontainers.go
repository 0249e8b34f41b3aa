package runtime

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer makes a container that is not running yet.
func (f *Fake) CreateContainer(ctx context.Context, sandboxID string, config *cri.ContainerConfig, sandboxConfig *cri.PodSandboxConfig) (string, error) {
	if err := f.begin(ctx, "CreateContainer", sandboxID); err != nil {
		return "", err
	}
	defer f.mu.Unlock()
	s := f.sandboxes[sandboxID]
	if s == nil {
		return "", notFound("sandbox", sandboxID)
	}
	if s.status.State != cri.PodSandboxState_SANDBOX_READY {
		return "", status.Errorf(codes.FailedPrecondition, "sandbox %q is not running", sandboxID)
	}
	image := f.images[config.GetImage().GetImage()]
	if image == nil {
		return "", notFound("image", config.GetImage().GetImage())
	}
	for _, c := range s.containers {
		if m := c.status.Metadata; m.GetName() == config.GetMetadata().GetName() && m.GetAttempt() == config.GetMetadata().GetAttempt() {
			return "", status.Errorf(codes.AlreadyExists, "container %s, attempt %d, is there already: %q", m.Name, m.Attempt, c.status.Id)
		}
	}
	var does Behaviour
	if f.options.Behave != nil {
		does = f.options.Behave(s.config, config)
	}
	if does.CreateError != nil {
		return "", does.CreateError
	}
	c := &fakeContainer{sandbox: s, does: does, status: &cri.ContainerStatus{
		Id:          f.newID(),
		Metadata:    config.Metadata,
		State:       cri.ContainerState_CONTAINER_CREATED,
		CreatedAt:   time.Now().UnixNano(),
		Image:       config.Image,
		ImageRef:    image.Id,
		ImageId:     image.Id,
		Labels:      config.Labels,
		Annotations: config.Annotations,
		Mounts:      config.Mounts,
		Resources:   &cri.ContainerResources{Linux: config.GetLinux().GetResources()},
	}}
	if config.LogPath != "" {
		c.status.LogPath = sandboxConfig.GetLogDirectory() + "/" + config.LogPath
	}
	f.containers[c.status.Id] = c
	s.containers = append(s.containers, c)
	f.send(s, c.status.Id, cri.ContainerEventType_CONTAINER_CREATED_EVENT)
	return c.status.Id, nil
}

// StartContainer starts a created container, after its StartDelay.
func (f *Fake) StartContainer(ctx context.Context, containerID string) error {
	if err := f.begin(ctx, "StartContainer", containerID); err != nil {
		return err
	}
	c := f.containers[containerID]
	f.mu.Unlock()
	if c == nil {
		return notFound("container", containerID)
	}
	if err := pause(ctx, c.does.StartDelay); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.status.State != cri.ContainerState_CONTAINER_CREATED || f.containers[containerID] == nil {
		return status.Errorf(codes.FailedPrecondition, "container %q is in state %s", containerID, c.status.State)
	}
	if err := c.does.StartError; err != nil {
		f.end(c, 128, "StartError", err.Error())
		return err
	}
	next := c.next()
	next.State = cri.ContainerState_CONTAINER_RUNNING
	next.StartedAt = time.Now().UnixNano()
	c.status = next
	f.send(c.sandbox, containerID, cri.ContainerEventType_CONTAINER_STARTED_EVENT)
	switch d := c.does.RunsFor; {
	case d < 0:
		f.exit(c, c.does.ExitCode, c.does.Reason)
	case d > 0:
		c.timer = time.AfterFunc(d, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.exit(c, c.does.ExitCode, c.does.Reason)
		})
	}
	return nil
}

// next returns a copy of the container's status to be changed at the top: what is below is shared, as nobody changes it.
func (c *fakeContainer) next() *cri.ContainerStatus {
	s := c.status
	return &cri.ContainerStatus{
		Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		ExitCode: s.ExitCode, Image: s.Image, ImageRef: s.ImageRef, Reason: s.Reason, Message: s.Message, Labels: s.Labels,
		Annotations: s.Annotations, Mounts: s.Mounts, LogPath: s.LogPath, Resources: s.Resources, ImageId: s.ImageId, User: s.User,
		StopSignal: s.StopSignal,
	}
}

// exit ends a running container; in any other state it does nothing.
func (f *Fake) exit(c *fakeContainer, code int32, reason string) {
	if c.status.State != cri.ContainerState_CONTAINER_RUNNING {
		return
	}
	if reason == "" {
		reason = "Completed"
		if code != 0 {
			reason = "Error"
		}
	}
	f.end(c, code, reason, "")
}

func (f *Fake) end(c *fakeContainer, code int32, reason, message string) {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	next := c.next()
	next.State = cri.ContainerState_CONTAINER_EXITED
	next.FinishedAt = time.Now().UnixNano()
	next.ExitCode, next.Reason, next.Message = code, reason, message
	c.status = next
	f.send(c.sandbox, next.Id, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// StopContainer ends a container within grace.
func (f *Fake) StopContainer(ctx context.Context, containerID string, grace time.Duration) error {
	if err := f.begin(ctx, "StopContainer", containerID); err != nil {
		return err
	}
	c := f.containers[containerID]
	running := c != nil && c.status.State == cri.ContainerState_CONTAINER_RUNNING
	f.mu.Unlock()
	if !running {
		return nil
	}
	code := c.does.StopExitCode
	takes := c.does.StopTakes
	if grace <= 0 || takes > grace {
		code, takes = 137, max(grace, 0)
	}
	if err := pause(ctx, takes); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exit(c, code, "")
	return nil
}

// RemoveContainer removes a container, ending it first.
func (f *Fake) RemoveContainer(ctx context.Context, containerID string) error {
	if err := f.begin(ctx, "RemoveContainer", containerID); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if c := f.containers[containerID]; c != nil {
		f.exit(c, 137, "")
		f.remove(c)
	}
	return nil
}

func (f *Fake) remove(c *fakeContainer) {
	delete(f.containers, c.status.Id)
	c.sandbox.containers = slices.DeleteFunc(c.sandbox.containers, func(o *fakeContainer) bool { return o == c })
	f.send(c.sandbox, c.status.Id, cri.ContainerEventType_CONTAINER_DELETED_EVENT)
}

// ContainerStatus returns one container.
func (f *Fake) ContainerStatus(ctx context.Context, containerID string) (*cri.ContainerStatus, error) {
	if err := f.begin(ctx, "ContainerStatus", containerID); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	if c := f.containers[containerID]; c != nil {
		return c.status, nil
	}
	return nil, notFound("container", containerID)
}

// ListContainers lists containers; those of one sandbox in order of creation, else in no order.
func (f *Fake) ListContainers(ctx context.Context, filter *cri.ContainerFilter) ([]*cri.Container, error) {
	if err := f.begin(ctx, "ListContainers", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var out []*cri.Container
	if id := filter.GetPodSandboxId(); id != "" {
		if s := f.sandboxes[id]; s != nil {
			out = s.list(filter, out)
		}
		return out, nil
	}
	for _, s := range f.sandboxes {
		out = s.list(filter, out)
	}
	return out, nil
}

// list appends s's containers that pass the filter to out.
func (s *fakeSandbox) list(filter *cri.ContainerFilter, out []*cri.Container) []*cri.Container {
	for _, c := range s.containers {
		if filter.GetId() != "" && filter.GetId() != c.status.Id ||
			filter.GetState() != nil && filter.GetState().State != c.status.State ||
			!labelled(c.status.Labels, filter.GetLabelSelector()) {
			continue
		}
		out = append(out, &cri.Container{
			Id: c.status.Id, PodSandboxId: s.status.Id, Metadata: c.status.Metadata, Image: c.status.Image,
			ImageRef: c.status.ImageRef, ImageId: c.status.ImageId, State: c.status.State,
			CreatedAt: c.status.CreatedAt, Labels: c.status.Labels, Annotations: c.status.Annotations,
		})
	}
	return out
}

// UpdateContainerResources notes the new limits.
func (f *Fake) UpdateContainerResources(ctx context.Context, containerID string, resources *cri.LinuxContainerResources) error {
	if err := f.begin(ctx, "UpdateContainerResources", containerID); err != nil {
		return err
	}
	defer f.mu.Unlock()
	c := f.containers[containerID]
	if c == nil {
		return notFound("container", containerID)
	}
	next := c.next()
	next.Resources = &cri.ContainerResources{Linux: resources}
	c.status = next
	return nil
}

// ReopenContainerLog checks that the container runs; there is no log.
func (f *Fake) ReopenContainerLog(ctx context.Context, containerID string) error {
	if err := f.begin(ctx, "ReopenContainerLog", containerID); err != nil {
		return err
	}
	defer f.mu.Unlock()
	_, err := f.running(containerID)
	return err
}

// ExecSync answers as FakeOptions.Exec says.
func (f *Fake) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (*ExecResult, error) {
	if err := f.begin(ctx, "ExecSync", containerID); err != nil {
		return nil, err
	}
	c, err := f.running(containerID)
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if f.options.Exec == nil {
		return &ExecResult{}, nil
	}
	return f.options.Exec(c, cmd)
}

func (f *Fake) running(containerID string) (*cri.ContainerStatus, error) {
	c := f.containers[containerID]
	if c == nil {
		return nil, notFound("container", containerID)
	}
	if c.status.State != cri.ContainerState_CONTAINER_RUNNING {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q is in state %s", containerID, c.status.State)
	}
	return c.status, nil
}
