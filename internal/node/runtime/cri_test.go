package runtime

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// oldRuntime serves a Fake over CRI, as a runtime that has no GetContainerEvents and no RuntimeConfig.
type oldRuntime struct {
	cri.UnimplementedRuntimeServiceServer
	fake *Fake
	// lastStop is the time-out of the last StopContainer, in seconds.
	lastStop atomic.Int64
}

func (s *oldRuntime) Version(ctx context.Context, _ *cri.VersionRequest) (*cri.VersionResponse, error) {
	return s.fake.Version(ctx)
}

func (s *oldRuntime) ListPodSandbox(ctx context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	items, err := s.fake.ListPodSandbox(ctx, r.Filter)
	return &cri.ListPodSandboxResponse{Items: items}, err
}

func (s *oldRuntime) ListContainers(ctx context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	items, err := s.fake.ListContainers(ctx, r.Filter)
	return &cri.ListContainersResponse{Containers: items}, err
}

func (s *oldRuntime) PodSandboxStatus(ctx context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	status, err := s.fake.PodSandboxStatus(ctx, r.PodSandboxId)
	return &cri.PodSandboxStatusResponse{Status: status}, err
}

func (s *oldRuntime) ContainerStatus(ctx context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	status, err := s.fake.ContainerStatus(ctx, r.ContainerId)
	return &cri.ContainerStatusResponse{Status: status}, err
}

func (s *oldRuntime) StopContainer(ctx context.Context, r *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	s.lastStop.Store(r.Timeout)
	if _, err := s.fake.ContainerStatus(ctx, r.ContainerId); err != nil {
		return nil, err // not idempotent, as some runtimes are
	}
	return &cri.StopContainerResponse{}, s.fake.StopContainer(ctx, r.ContainerId, time.Duration(r.Timeout)*time.Second)
}

// serve serves s on a socket until the test ends, and returns a client of it.
func serve(t *testing.T, s *oldRuntime) *CRI {
	t.Helper()
	dir, err := os.MkdirTemp("", "cri-") // t.TempDir's names may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	c, err := NewCRI("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Version(t.Context()); !IsUnavailable(err) {
		t.Errorf("before the runtime listens: %v, want unavailable", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		c.Close()
		server.Stop()
		<-done
		os.RemoveAll(dir)
	})
	c.conn.ResetConnectBackoff()
	return c
}

func TestOldRuntimeIsPolled(t *testing.T) {
	s := &oldRuntime{fake: NewFake(FakeOptions{Images: []string{"app"}})}
	c := serve(t, s)
	c.pollEvery = time.Millisecond
	for {
		if _, err := c.Version(t.Context()); err == nil {
			break
		} else if !IsUnavailable(err) {
			t.Fatal(err)
		}
	}
	if d, err := c.CgroupDriver(t.Context()); err != nil || d != cri.CgroupDriver_CGROUPFS {
		t.Errorf("cgroup driver of a runtime that does not say: %v, %v", d, err)
	}
	if err := c.Events(t.Context(), func() {}, func(*Event) {}); !IsUnimplemented(err) {
		t.Errorf("the first Events: %v, want unimplemented", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ready, events, done := make(chan struct{}), make(chan *Event, 100), make(chan error, 1)
	go func() {
		done <- c.Events(ctx, func() { close(ready) }, func(e *Event) { events <- e })
	}()
	<-ready
	pod := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "pod"}}
	sandbox, err := s.fake.RunPodSandbox(ctx, pod, "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.fake.CreateContainer(ctx, sandbox, &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: "app"}}, pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.fake.StartContainer(ctx, id); err != nil {
		t.Fatal(err)
	}
	// wait reads events until one is of the kind and about the ID.
	wait := func(id string, kind cri.ContainerEventType) *Event {
		t.Helper()
		for timeout := time.After(10 * time.Second); ; {
			select {
			case e := <-events:
				if e.ContainerId == id && e.ContainerEventType == kind {
					return e
				}
			case err := <-done:
				t.Fatalf("Events: %v", err)
			case <-timeout:
				t.Fatalf("no %s of %s", kind, id)
			}
		}
	}
	if e := wait(id, cri.ContainerEventType_CONTAINER_STARTED_EVENT); e.PodSandboxStatus.GetId() != sandbox ||
		len(e.ContainersStatuses) != 1 || e.ContainersStatuses[0].State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("event of a start: %v", e)
	}
	if err := s.fake.Exit(id, 3, ""); err != nil {
		t.Fatal(err)
	}
	if e := wait(id, cri.ContainerEventType_CONTAINER_STOPPED_EVENT); len(e.ContainersStatuses) != 1 || e.ContainersStatuses[0].ExitCode != 3 {
		t.Errorf("event of an end: %v", e)
	}
	if err := s.fake.RemovePodSandbox(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	if e := wait(sandbox, cri.ContainerEventType_CONTAINER_DELETED_EVENT); e.PodSandboxStatus != nil {
		t.Errorf("event of a removal: %v", e)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Events after cancellation: %v", err)
	}
}

func TestCRITranslation(t *testing.T) {
	s := &oldRuntime{fake: NewFake(FakeOptions{Images: []string{"app"}})}
	c := serve(t, s)
	for {
		if _, err := c.Version(t.Context()); !IsUnavailable(err) {
			break
		}
	}
	// A fraction of a second must not become zero, which kills.
	for grace, want := range map[time.Duration]int64{0: 0, time.Millisecond: 1, time.Second: 1, 1500 * time.Millisecond: 2, -time.Second: 0} {
		if err := c.StopContainer(t.Context(), "none", grace); err != nil {
			t.Errorf("stop what is not there: %v", err)
		}
		if got := s.lastStop.Load(); got != want {
			t.Errorf("grace %v became %d s, want %d", grace, got, want)
		}
	}
	if _, err := c.ContainerStatus(t.Context(), "none"); !IsNotFound(err) {
		t.Errorf("status of what is not there: %v", err)
	}
	for _, bad := range []string{"", "relative/socket", "tcp://127.0.0.1:1"} {
		if _, err := NewCRI(bad); err == nil {
			t.Errorf("endpoint %q was taken", bad)
		}
	}
}
