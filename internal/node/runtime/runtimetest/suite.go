// Package runtimetest is the one suite that every runtime.Runtime passes: the fake and containers on a real node alike.
// What it checks is what the agent relies on.
package runtimetest

import (
	"context"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// Config says what the suite runs with.
type Config struct {
	Runtime runtime.Runtime
	// Image has a shell, sleep and true. It is there already.
	Image string
	// HostNetwork makes the pods use the node's network, where there is no CNI plugin.
	HostNetwork bool
	// CgroupParent is below which the pods go.
	CgroupParent string
}

// Forever and Exit3 are the commands of the containers that the suite runs; a fake is to do as they say.
var (
	Forever = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do /bin/sleep 0.05; done"}
	Exit3   = []string{"/bin/sh", "-c", "exit 3"}
)

// Run runs the suite. It leaves nothing behind in the runtime.
func Run(t *testing.T, c Config) {
	for _, test := range []struct {
		name string
		f    func(*fixture)
	}{
		{"version and status", versionAndStatus},
		{"a sandbox lives and dies", sandboxLife},
		{"a container lives and dies", containerLife},
		{"a container ends by itself and an event says so", exitEvent},
		{"events tell all steps in order", eventOrder},
		{"what is not there", notThere},
		{"removal takes what is running along", removal},
		{"a name is taken once", names},
		{"commands run in a container", exec},
		{"images", images},
		{"statistics", stats},
		{"resources change while running", resources},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.f(&fixture{T: t, Config: c, ctx: t.Context()})
		})
	}
}

type fixture struct {
	*testing.T
	Config
	ctx  context.Context
	pods uint32 // made so far
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) pod(name string) *cri.PodSandboxConfig {
	f.pods++
	p := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "suite", Uid: f.Name(), Attempt: f.pods},
		LogDirectory: f.TempDir(),
		Labels:       map[string]string{"io.kubernetes.pod.uid": f.Name(), "suite": "yes"},
		Annotations:  map[string]string{"note": "kept"},
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: f.CgroupParent, SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{}}},
	}
	if f.HostNetwork {
		p.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	}
	return p
}

func (f *fixture) run(p *cri.PodSandboxConfig) string {
	f.Helper()
	id, err := f.Runtime.RunPodSandbox(f.ctx, p, "")
	f.must(err)
	f.Cleanup(func() {
		if err := f.Runtime.RemovePodSandbox(context.Background(), id); err != nil {
			f.Errorf("clean up sandbox: %v", err)
		}
	})
	return id
}

func (f *fixture) container(name string, command []string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata:    &cri.ContainerMetadata{Name: name},
		Image:       &cri.ImageSpec{Image: f.Image},
		Command:     command,
		LogPath:     name + ".log",
		Labels:      map[string]string{"io.kubernetes.container.name": name},
		Annotations: map[string]string{"hash": "1"},
		Linux:       &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{}},
	}
}

// start makes a pod with one running container.
func (f *fixture) start(command []string) (p *cri.PodSandboxConfig, sandbox, id string) {
	f.Helper()
	p = f.pod("pod")
	sandbox = f.run(p)
	id, err := f.Runtime.CreateContainer(f.ctx, sandbox, f.container("main", command), p)
	f.must(err)
	f.must(f.Runtime.StartContainer(f.ctx, id))
	return p, sandbox, id
}

// eventually waits for a condition; what says what was seen last.
func (f *fixture) eventually(what func() (string, bool)) {
	f.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		seen, ok := what()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("after 10 s: %s", seen)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (f *fixture) state(id string, want cri.ContainerState) *cri.ContainerStatus {
	f.Helper()
	s, err := f.Runtime.ContainerStatus(f.ctx, id)
	f.must(err)
	if s.State != want {
		f.Fatalf("container is %s, want %s: %v", s.State, want, s)
	}
	return s
}

func versionAndStatus(f *fixture) {
	v, err := f.Runtime.Version(f.ctx)
	f.must(err)
	if v.RuntimeName == "" || v.RuntimeApiVersion != "v1" {
		f.Errorf("version: %v", v)
	}
	s, err := f.Runtime.Status(f.ctx)
	f.must(err)
	conditions := map[string]bool{}
	for _, c := range s.GetStatus().GetConditions() {
		conditions[c.Type] = c.Status
	}
	if !conditions[cri.RuntimeReady] {
		f.Errorf("RuntimeReady is not true: %v", s)
	}
	if _, ok := conditions[cri.NetworkReady]; !ok {
		f.Errorf("no condition NetworkReady: %v", s)
	}
	if _, err := f.Runtime.CgroupDriver(f.ctx); err != nil {
		f.Error(err)
	}
}

func sandboxLife(f *fixture) {
	p := f.pod("pod")
	id := f.run(p)
	s, err := f.Runtime.PodSandboxStatus(f.ctx, id)
	f.must(err)
	if s.State != cri.PodSandboxState_SANDBOX_READY || s.Metadata.Name != "pod" || s.Metadata.Uid != f.Name() ||
		s.Labels["suite"] != "yes" || s.Annotations["note"] != "kept" || s.CreatedAt == 0 {
		f.Errorf("status of a new sandbox: %v", s)
	}
	if got := s.GetNetwork().GetIp() != ""; got == f.HostNetwork {
		f.Errorf("address %q, host network %v", s.GetNetwork().GetIp(), f.HostNetwork)
	}
	for _, filter := range []*cri.PodSandboxFilter{
		{LabelSelector: map[string]string{"io.kubernetes.pod.uid": f.Name()}},
		{Id: id},
		{LabelSelector: map[string]string{"io.kubernetes.pod.uid": f.Name()}, State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}},
	} {
		list, err := f.Runtime.ListPodSandbox(f.ctx, filter)
		f.must(err)
		if len(list) != 1 || list[0].Id != id || list[0].State != cri.PodSandboxState_SANDBOX_READY || list[0].Annotations["note"] != "kept" {
			f.Errorf("list with %v: %v", filter, list)
		}
	}
	for range 2 {
		f.must(f.Runtime.StopPodSandbox(f.ctx, id))
	}
	s, err = f.Runtime.PodSandboxStatus(f.ctx, id)
	f.must(err)
	if s.State != cri.PodSandboxState_SANDBOX_NOTREADY {
		f.Errorf("status of a stopped sandbox: %v", s)
	}
	if list, err := f.Runtime.ListPodSandbox(f.ctx, &cri.PodSandboxFilter{Id: id, State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}); err != nil || len(list) != 0 {
		f.Errorf("a stopped sandbox is listed among the ready ones: %v, %v", list, err)
	}
	if _, err := f.Runtime.CreateContainer(f.ctx, id, f.container("late", Forever), p); err == nil {
		f.Error("a container was created in a stopped sandbox")
	}
	for range 2 {
		f.must(f.Runtime.RemovePodSandbox(f.ctx, id))
	}
	if s, err := f.Runtime.PodSandboxStatus(f.ctx, id); !runtime.IsNotFound(err) {
		f.Errorf("status of a removed sandbox: %v, %v", s, err)
	}
}

func containerLife(f *fixture) {
	p := f.pod("pod")
	sandbox := f.run(p)
	id, err := f.Runtime.CreateContainer(f.ctx, sandbox, f.container("main", Forever), p)
	f.must(err)
	s := f.state(id, cri.ContainerState_CONTAINER_CREATED)
	if s.CreatedAt == 0 || s.StartedAt != 0 || s.Metadata.Name != "main" || s.Labels["io.kubernetes.container.name"] != "main" ||
		s.Annotations["hash"] != "1" || s.LogPath != p.LogDirectory+"/main.log" || s.ImageRef == "" {
		f.Errorf("status of a created container: %v", s)
	}
	if s.GetImage().GetImage() == "" {
		f.Errorf("a created container has no image: %v", s)
	}
	f.must(f.Runtime.StartContainer(f.ctx, id))
	if s = f.state(id, cri.ContainerState_CONTAINER_RUNNING); s.StartedAt < s.CreatedAt || s.FinishedAt != 0 {
		f.Errorf("status of a running container: %v", s)
	}
	if err := f.Runtime.StartContainer(f.ctx, id); err == nil {
		f.Error("a running container was started again")
	}
	list, err := f.Runtime.ListContainers(f.ctx, &cri.ContainerFilter{PodSandboxId: sandbox})
	f.must(err)
	if len(list) != 1 || list[0].Id != id || list[0].PodSandboxId != sandbox || list[0].State != cri.ContainerState_CONTAINER_RUNNING {
		f.Errorf("list: %v", list)
	}
	f.must(f.Runtime.StopContainer(f.ctx, id, 5*time.Second))
	if s = f.state(id, cri.ContainerState_CONTAINER_EXITED); s.ExitCode != 0 || s.Reason != "Completed" || s.FinishedAt < s.StartedAt {
		f.Errorf("status of a container that ended on SIGTERM: %v", s)
	}
	f.must(f.Runtime.StopContainer(f.ctx, id, 5*time.Second))
	for range 2 {
		f.must(f.Runtime.RemoveContainer(f.ctx, id))
	}
	if s, err := f.Runtime.ContainerStatus(f.ctx, id); !runtime.IsNotFound(err) {
		f.Errorf("status of a removed container: %v, %v", s, err)
	}

	_, _, killed := f.start(Forever)
	f.must(f.Runtime.StopContainer(f.ctx, killed, 0))
	if s = f.state(killed, cri.ContainerState_CONTAINER_EXITED); s.ExitCode != 137 || s.Reason != "Error" {
		f.Errorf("status of a killed container: %v", s)
	}
}

func notThere(f *fixture) {
	f.must(f.Runtime.StopPodSandbox(f.ctx, "none"))
	f.must(f.Runtime.RemovePodSandbox(f.ctx, "none"))
	f.must(f.Runtime.StopContainer(f.ctx, "none", time.Second))
	f.must(f.Runtime.RemoveContainer(f.ctx, "none"))
	if err := f.Runtime.StartContainer(f.ctx, "none"); !runtime.IsNotFound(err) {
		f.Errorf("StartContainer: %v", err)
	}
	if _, err := f.Runtime.ExecSync(f.ctx, "none", []string{"/bin/true"}, 0); !runtime.IsNotFound(err) {
		f.Errorf("ExecSync: %v", err)
	}
	p := f.pod("pod")
	if _, err := f.Runtime.CreateContainer(f.ctx, "none", f.container("main", Forever), p); err == nil {
		f.Error("a container was created in no sandbox")
	}
	sandbox := f.run(p)
	c := f.container("main", Forever)
	c.Image.Image = "docker.io/knarr/none:1"
	if _, err := f.Runtime.CreateContainer(f.ctx, sandbox, c, p); err == nil {
		f.Error("a container was created of no image")
	}
	for _, filter := range []*cri.ContainerFilter{{PodSandboxId: "none"}, {Id: "none"}, {LabelSelector: map[string]string{"no": "such"}}} {
		if list, err := f.Runtime.ListContainers(f.ctx, filter); err != nil || len(list) > 0 {
			f.Errorf("list with %v: %v, %v", filter, list, err)
		}
	}
}

func removal(f *fixture) {
	_, _, id := f.start(Forever)
	f.must(f.Runtime.RemoveContainer(f.ctx, id))
	if _, err := f.Runtime.ContainerStatus(f.ctx, id); !runtime.IsNotFound(err) {
		f.Errorf("a running container is there after its removal: %v", err)
	}
	p := f.pod("second")
	sandbox := f.run(p)
	id, err := f.Runtime.CreateContainer(f.ctx, sandbox, f.container("main", Forever), p)
	f.must(err)
	f.must(f.Runtime.StartContainer(f.ctx, id))
	f.must(f.Runtime.StopPodSandbox(f.ctx, sandbox))
	f.eventually(func() (string, bool) {
		s, err := f.Runtime.ContainerStatus(f.ctx, id)
		f.must(err)
		return s.String(), s.State == cri.ContainerState_CONTAINER_EXITED
	})
	f.must(f.Runtime.RemovePodSandbox(f.ctx, sandbox))
	if _, err := f.Runtime.ContainerStatus(f.ctx, id); !runtime.IsNotFound(err) {
		f.Errorf("a container is there after its sandbox's removal: %v", err)
	}
}

func names(f *fixture) {
	p := f.pod("pod")
	sandbox := f.run(p)
	if id, err := f.Runtime.RunPodSandbox(f.ctx, p, ""); err == nil {
		f.Errorf("two sandboxes of one name: %s and %s", sandbox, id)
	}
	c := f.container("main", Forever)
	id, err := f.Runtime.CreateContainer(f.ctx, sandbox, c, p)
	f.must(err)
	if again, err := f.Runtime.CreateContainer(f.ctx, sandbox, c, p); err == nil {
		f.Errorf("two containers of one name: %s and %s", id, again)
	}
	c.Metadata = &cri.ContainerMetadata{Name: "main", Attempt: 1}
	if _, err := f.Runtime.CreateContainer(f.ctx, sandbox, c, p); err != nil {
		f.Errorf("the next attempt: %v", err)
	}
	f.must(f.Runtime.RemovePodSandbox(f.ctx, sandbox))
	f.run(p) // the name is free again
}
