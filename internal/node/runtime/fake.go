package runtime

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Behaviour says what a fake container does. The zero value starts at once, runs until it is stopped, and then ends at
// once with code 0.
type Behaviour struct {
	CreateError error         // CreateContainer fails with it
	StartError  error         // StartContainer fails with it and the container is exited with code 128, as runc's failures are
	StartDelay  time.Duration // how long StartContainer takes

	RunsFor  time.Duration // ends by itself after this time; zero means never, negative at once
	ExitCode int32         // the code with which it then ends
	Reason   string        // "Completed" or "Error" by the code unless given, e.g. "OOMKilled"

	StopTakes    time.Duration // from the stop signal to the end; more than the grace means it is killed (137)
	StopExitCode int32         // the code with which it ends on the stop signal

	MilliCPU    uint64 // what the statistics say it uses
	MemoryBytes uint64
}

// FakeOptions script a Fake. The zero value is a node on which everything succeeds at once.
type FakeOptions struct {
	// Name distinguishes this fake's container IDs from another's; "fake" by default.
	Name string
	// PodCIDR gives pod addresses until UpdateRuntimeConfig says otherwise; 10.244.0.0/16 by default.
	PodCIDR string
	// SandboxDelay and PullDelay are how long RunPodSandbox and PullImage take.
	SandboxDelay, PullDelay time.Duration
	// Images are there from the start. Every other image can be pulled, unless Fail says no.
	Images []string
	// Behave says what a container does; nil means the zero Behaviour. It is called once per container, at creation.
	Behave func(pod *cri.PodSandboxConfig, container *cri.ContainerConfig) Behaviour
	// Exec answers ExecSync; nil means code 0 and no output.
	Exec func(container *cri.ContainerStatus, cmd []string) (*ExecResult, error)
	// Fail, if set, is asked before every call, with the method's name and the ID (or image) it is about; an error it
	// returns is the call's answer.
	Fail func(method, id string) error
}

// Fake is a Runtime in memory. It runs nothing: containers change state by calls, by timers and by the methods Exit and
// KillSandbox. It has no goroutines of its own, so that thousands of fakes fit in one process, and it works in a
// testing/synctest bubble if it was made in it.
type Fake struct {
	options FakeOptions

	mu         sync.Mutex
	seq        int
	sandboxes  map[string]*fakeSandbox
	names      map[sandboxName]string // to the sandbox's ID
	containers map[string]*fakeContainer
	images     map[string]*cri.Image // by name and by digest
	cidrs      []netip.Prefix
	addrs      map[netip.Addr]bool // in use
	lastAddr   []netip.Addr        // by position in cidrs, where the search goes on
	listeners  map[*listener]bool
	down       bool
	notReady   map[string]string // condition type -> message
}

var _ Runtime = (*Fake)(nil)

// NewFake returns a runtime without containers.
func NewFake(options FakeOptions) *Fake {
	if options.Name == "" {
		options.Name = "fake"
	}
	if options.PodCIDR == "" {
		options.PodCIDR = "10.244.0.0/16"
	}
	f := &Fake{
		options:    options,
		sandboxes:  map[string]*fakeSandbox{},
		names:      map[sandboxName]string{},
		containers: map[string]*fakeContainer{},
		images:     map[string]*cri.Image{},
		addrs:      map[netip.Addr]bool{},
		listeners:  map[*listener]bool{},
		notReady:   map[string]string{},
	}
	if err := f.setCIDRs(options.PodCIDR); err != nil {
		panic(fmt.Sprintf("runtime.NewFake: %v", err)) // a mistake in a test, not a condition
	}
	for _, name := range options.Images {
		f.addImage(name)
	}
	return f
}

// SetDown makes every call fail with IsUnavailable and breaks all event streams, as when the runtime is killed; the
// containers go on. SetDown(false) brings it back.
func (f *Fake) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	if down {
		f.breakStreams()
	}
}

// BreakEvents ends all event streams with an error, as when one connection is lost.
func (f *Fake) BreakEvents() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.breakStreams()
}

// SetCondition makes the condition RuntimeReady or NetworkReady false, with the message; an empty message makes it true.
func (f *Fake) SetCondition(condition, message string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if message == "" {
		delete(f.notReady, condition)
	} else {
		f.notReady[condition] = message
	}
}

// Exit ends a running container, as if its process had ended by itself.
func (f *Fake) Exit(containerID string, code int32, reason string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[containerID]
	if c == nil {
		return notFound("container", containerID)
	}
	f.exit(c, code, reason)
	return nil
}

// KillSandbox ends a sandbox and its containers, as if the pause process had been killed.
func (f *Fake) KillSandbox(sandboxID string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sandboxes[sandboxID]
	if s == nil {
		return notFound("sandbox", sandboxID)
	}
	f.stopSandbox(s)
	return nil
}

// begin is the start of every call: the scripted failure, then the lock.
func (f *Fake) begin(ctx context.Context, method, id string) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	if f.options.Fail != nil {
		if err := f.options.Fail(method, id); err != nil {
			return err
		}
	}
	f.mu.Lock()
	if f.down {
		f.mu.Unlock()
		return status.Error(codes.Unavailable, "the fake runtime is down")
	}
	return nil
}

// pause waits without the lock; zero costs nothing.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-t.C:
		return nil
	}
}

func (f *Fake) newID() string {
	f.seq++
	return fmt.Sprintf("%s-%d", f.options.Name, f.seq)
}

// Close does nothing.
func (f *Fake) Close() error { return nil }

// Version returns the fake's name.
func (f *Fake) Version(ctx context.Context) (*cri.VersionResponse, error) {
	if err := f.begin(ctx, "Version", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	return &cri.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status returns both conditions, true unless SetCondition said otherwise.
func (f *Fake) Status(ctx context.Context) (*cri.StatusResponse, error) {
	if err := f.begin(ctx, "Status", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	s := &cri.RuntimeStatus{}
	for _, t := range []string{cri.RuntimeReady, cri.NetworkReady} {
		c := &cri.RuntimeCondition{Type: t, Status: true}
		if m, no := f.notReady[t]; no {
			c.Status, c.Reason, c.Message = false, "Fake", m
		}
		s.Conditions = append(s.Conditions, c)
	}
	return &cri.StatusResponse{Status: s, Features: &cri.RuntimeFeatures{SupplementalGroupsPolicy: true}, RuntimeHandlers: []*cri.RuntimeHandler{
		{Name: "", Features: &cri.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true}},
	}}, nil
}

// UpdateRuntimeConfig changes where pod addresses come from.
func (f *Fake) UpdateRuntimeConfig(ctx context.Context, podCIDR string) error {
	if err := f.begin(ctx, "UpdateRuntimeConfig", podCIDR); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if err := f.setCIDRs(podCIDR); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return nil
}

// CgroupDriver returns CGROUPFS.
func (f *Fake) CgroupDriver(ctx context.Context) (cri.CgroupDriver, error) {
	if err := f.begin(ctx, "CgroupDriver", ""); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	return cri.CgroupDriver_CGROUPFS, nil
}

func (f *Fake) setCIDRs(list string) error {
	var cidrs []netip.Prefix
	for s := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("pod CIDR %q: %w", s, err)
		}
		cidrs = append(cidrs, p.Masked())
	}
	f.cidrs = cidrs
	f.lastAddr = make([]netip.Addr, len(cidrs))
	return nil
}

// takeAddrs takes the next free address of each pod CIDR. The network's address and the first host's are left out, as
// host-local IPAM does.
func (f *Fake) takeAddrs() ([]netip.Addr, error) {
	var got []netip.Addr
	for i, p := range f.cidrs {
		first := p.Addr().Next().Next()
		a := f.lastAddr[i]
		for wrapped := false; ; {
			if a.IsValid() {
				a = a.Next()
			}
			if !p.Contains(a) {
				if wrapped {
					return nil, status.Errorf(codes.ResourceExhausted, "no free address in %s", p)
				}
				a, wrapped = first, true
			}
			if p.Contains(a) && !f.addrs[a] {
				break
			}
		}
		f.addrs[a], f.lastAddr[i] = true, a
		got = append(got, a)
	}
	return got, nil
}
