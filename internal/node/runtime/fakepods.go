package runtime

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeSandbox holds a sandbox. status is immutable once stored: a change stores another one, so that answers and events
// share it.
type fakeSandbox struct {
	status     *cri.PodSandboxStatus
	config     *cri.PodSandboxConfig // kept for Behave only
	addrs      []netip.Addr
	containers []*fakeContainer // in order of creation
}

// fakeContainer holds a container; status is immutable as a sandbox's is.
type fakeContainer struct {
	status  *cri.ContainerStatus
	sandbox *fakeSandbox
	does    Behaviour
	timer   *time.Timer // ends it, where it ends by itself
}

// sandboxName is what makes a sandbox's metadata unique.
type sandboxName struct {
	name, namespace, uid string
	attempt              uint32
}

func nameOf(m *cri.PodSandboxMetadata) sandboxName {
	return sandboxName{m.GetName(), m.GetNamespace(), m.GetUid(), m.GetAttempt()}
}

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q not found", what, id)
}

// RunPodSandbox makes a ready sandbox.
func (f *Fake) RunPodSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	if config.GetMetadata().GetName() == "" {
		return "", status.Error(codes.InvalidArgument, "sandbox metadata without a name")
	}
	if err := pause(ctx, f.options.SandboxDelay); err != nil {
		return "", err
	}
	if err := f.begin(ctx, "RunPodSandbox", config.GetMetadata().GetName()); err != nil {
		return "", err
	}
	defer f.mu.Unlock()
	name := nameOf(config.Metadata)
	if id, taken := f.names[name]; taken {
		return "", status.Errorf(codes.AlreadyExists, "sandbox name %+v is reserved for %q", name, id)
	}
	options := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	s := &fakeSandbox{status: &cri.PodSandboxStatus{
		Id:             f.newID(),
		Metadata:       config.Metadata,
		State:          cri.PodSandboxState_SANDBOX_READY,
		CreatedAt:      time.Now().UnixNano(),
		Network:        &cri.PodSandboxNetworkStatus{},
		Linux:          &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: options}},
		Labels:         config.Labels,
		Annotations:    config.Annotations,
		RuntimeHandler: handler,
	}}
	if f.options.Behave != nil {
		s.config = config
	}
	if options.GetNetwork() != cri.NamespaceMode_NODE {
		addrs, err := f.takeAddrs()
		if err != nil {
			return "", err
		}
		s.addrs = addrs
		s.status.Network.Ip = addrs[0].String()
		for _, a := range addrs[1:] {
			s.status.Network.AdditionalIps = append(s.status.Network.AdditionalIps, &cri.PodIP{Ip: a.String()})
		}
	}
	f.sandboxes[s.status.Id] = s
	f.names[name] = s.status.Id
	f.send(s, s.status.Id, cri.ContainerEventType_CONTAINER_CREATED_EVENT)
	f.send(s, s.status.Id, cri.ContainerEventType_CONTAINER_STARTED_EVENT)
	return s.status.Id, nil
}

// StopPodSandbox ends the sandbox and its containers.
func (f *Fake) StopPodSandbox(ctx context.Context, sandboxID string) error {
	if err := f.begin(ctx, "StopPodSandbox", sandboxID); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if s := f.sandboxes[sandboxID]; s != nil {
		f.stopSandbox(s)
	}
	return nil
}

func (f *Fake) stopSandbox(s *fakeSandbox) {
	for _, c := range s.containers {
		f.exit(c, 137, "")
	}
	for _, a := range s.addrs {
		delete(f.addrs, a)
	}
	s.addrs = nil
	if s.status.State == cri.PodSandboxState_SANDBOX_NOTREADY {
		return
	}
	next := proto.CloneOf(s.status)
	next.State = cri.PodSandboxState_SANDBOX_NOTREADY
	next.Network = &cri.PodSandboxNetworkStatus{}
	s.status = next
	f.send(s, s.status.Id, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// RemovePodSandbox removes the sandbox and its containers.
func (f *Fake) RemovePodSandbox(ctx context.Context, sandboxID string) error {
	if err := f.begin(ctx, "RemovePodSandbox", sandboxID); err != nil {
		return err
	}
	defer f.mu.Unlock()
	s := f.sandboxes[sandboxID]
	if s == nil {
		return nil
	}
	f.stopSandbox(s)
	for _, c := range slices.Clone(s.containers) {
		f.remove(c)
	}
	delete(f.sandboxes, sandboxID)
	delete(f.names, nameOf(s.status.Metadata))
	f.sendGone(sandboxID)
	return nil
}

// PodSandboxStatus returns one sandbox.
func (f *Fake) PodSandboxStatus(ctx context.Context, sandboxID string) (*cri.PodSandboxStatus, error) {
	if err := f.begin(ctx, "PodSandboxStatus", sandboxID); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	if s := f.sandboxes[sandboxID]; s != nil {
		return s.status, nil
	}
	return nil, notFound("sandbox", sandboxID)
}

// ListPodSandbox lists sandboxes in no order.
func (f *Fake) ListPodSandbox(ctx context.Context, filter *cri.PodSandboxFilter) ([]*cri.PodSandbox, error) {
	if err := f.begin(ctx, "ListPodSandbox", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var out []*cri.PodSandbox
	for id, s := range f.sandboxes {
		if filter.GetId() != "" && filter.GetId() != id ||
			filter.GetState() != nil && filter.GetState().State != s.status.State ||
			!labelled(s.status.Labels, filter.GetLabelSelector()) {
			continue
		}
		out = append(out, &cri.PodSandbox{
			Id: id, Metadata: s.status.Metadata, State: s.status.State, CreatedAt: s.status.CreatedAt,
			Labels: s.status.Labels, Annotations: s.status.Annotations, RuntimeHandler: s.status.RuntimeHandler,
		})
	}
	return out, nil
}

// labelled reports whether labels has all of want.
func labelled(labels, want map[string]string) bool {
	for k, v := range want {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// ports and addresses of hollow pods answer nothing, hence no streaming server either.
func noStreams() error {
	return status.Error(codes.Unimplemented, "a hollow node has no processes to connect to")
}

// Exec fails: there is no process.
func (f *Fake) Exec(context.Context, *cri.ExecRequest) (string, error) { return "", noStreams() }

// Attach fails: there is no process.
func (f *Fake) Attach(context.Context, *cri.AttachRequest) (string, error) { return "", noStreams() }

// PortForward fails: there is no process.
func (f *Fake) PortForward(context.Context, *cri.PortForwardRequest) (string, error) {
	return "", noStreams()
}

// ContainerIDs returns the IDs of all containers, by "pod name/container name", the latest attempt of each; for tests
// that want to end one.
func (f *Fake) ContainerIDs() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]string{}
	for _, s := range f.sandboxes {
		for _, c := range s.containers {
			out[s.status.Metadata.Name+"/"+c.status.Metadata.Name] = c.status.Id
		}
	}
	return out
}
