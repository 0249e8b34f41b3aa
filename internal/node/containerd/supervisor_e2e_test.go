package containerd

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// startPod starts a pod on the host's network with one container that runs until it is stopped.
func startPod(t *testing.T, s *Supervisor, c *runtime.CRI) (sandbox, container string) {
	t.Helper()
	ctx := t.Context()
	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "pod", Namespace: "test", Uid: "1"},
		LogDirectory: t.TempDir(),
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: cgroupOf(s.options.DataDir), SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}}},
	}
	sandbox, err := c.RunPodSandbox(ctx, pod, "")
	if err != nil {
		t.Fatal(err)
	}
	container, err = c.CreateContainer(ctx, sandbox, &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: testImage},
		Command: []string{"/bin/sleep", "1000000"}, LogPath: "main.log",
	}, pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.StartContainer(ctx, container); err != nil {
		t.Fatal(err)
	}
	return sandbox, container
}

func onlyChild(t testing.TB, o *Options) int {
	t.Helper()
	found, err := findProcesses(o.configFile())
	if err != nil || len(found) != 1 {
		t.Fatalf("children: %v, error %v; want one", found, err)
	}
	for pid := range found {
		return pid
	}
	return 0
}

func wantRunning(t *testing.T, c *runtime.CRI, container string) {
	t.Helper()
	s, err := c.ContainerStatus(t.Context(), container)
	if err != nil || s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("container: %v, error %v; want it running", s, err)
	}
	r, err := c.ExecSync(t.Context(), container, []string{"/bin/true"}, 10*time.Second)
	if err != nil || r.ExitCode != 0 {
		t.Fatalf("exec: %+v, error %v", r, err)
	}
}

// waitRestart waits until there is another child, and it is ready.
func waitRestart(t *testing.T, s *Supervisor, was int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if err := s.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		if found, err := findProcesses(s.options.configFile()); err == nil && len(found) == 1 && found[was] == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the child was not started again")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestContainersOutliveTheRuntime(t *testing.T) {
	s, stop := supervise(t, e2eOptions(t))
	importTestImage(t, s)
	c := dial(t, s)
	_, container := startPod(t, s, c)
	wantRunning(t, c, container)

	// Events of the stream that breaks, and of the one after.
	broken := make(chan error, 1)
	go func() { broken <- c.Events(t.Context(), func() {}, func(*runtime.Event) {}) }()

	child := onlyChild(t, &s.options)
	began := time.Now()
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-broken; err == nil {
		t.Error("the event stream ended without an error")
	}
	waitRestart(t, s, child)
	t.Logf("runtime is back after %v", time.Since(began).Round(time.Millisecond))
	wantRunning(t, c, container)

	stop()
	if err := s.Ready(); err == nil {
		t.Error("ready after stop")
	}
	s, _ = supervise(t, s.options)
	wantRunning(t, dial(t, s), container)
}

func TestAdoptsRuntimeOfKilledKnarr(t *testing.T) {
	o := e2eOptions(t)
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	knarr := exec.Command(os.Args[0], "supervise", o.DataDir, o.Libexec)
	knarr.Stderr = testWriter{t}
	if err := knarr.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := runtime.NewCRI(o.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		i, err := c.ImageStatus(t.Context(), &cri.ImageSpec{Image: PauseImage})
		if i != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the runtime does not start: %v", err)
		}
		<-time.After(5 * time.Millisecond)
	}
	child := onlyChild(t, &o)
	if err := knarr.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = knarr.Wait()

	// The same configuration: the same child.
	began := time.Now()
	s, _ := supervise(t, o)
	t.Logf("adopted after %v", time.Since(began).Round(time.Millisecond))
	if now := onlyChild(t, &o); now != child {
		t.Fatalf("child %d was replaced by %d", child, now)
	}
	importTestImage(t, s)
	_, container := startPod(t, s, c)

	// An adopted child that dies is noticed, too.
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitRestart(t, s, child)
	wantRunning(t, c, container)
}

func TestReplacesRuntimeOfAnotherConfiguration(t *testing.T) {
	o := e2eOptions(t)
	left, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.prepare(); err != nil {
		t.Fatal(err)
	}
	generation, err := left.prepareCertificate()
	if err != nil {
		t.Fatal(err)
	}
	p, err := startProcess(t.Context(), &left.options, generation)
	if err != nil {
		t.Fatal(err)
	}
	o.MaxLogLine = 8 << 10
	s, _ := supervise(t, o)
	select {
	case <-p.gone:
	default:
		t.Error("the child of the old configuration still runs")
	}
	if now := onlyChild(t, &s.options); now == p.pid {
		t.Error("the child was kept")
	}
}

// TestRenewsCertificate: the child gets a new certificate in time, and one with an old certificate is not adopted.
func TestRenewsCertificate(t *testing.T) {
	o := e2eOptions(t)
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	var ahead atomic.Int64
	s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s.checkEvery = 10 * time.Millisecond
	stop := run(t, s)
	importTestImage(t, s)
	c := dial(t, s)
	_, container := startPod(t, s, c)
	child, first := onlyChild(t, &s.options), s.StreamCertificate()

	// The certificate of the future is not valid yet today, which is what the next Knarr finds.
	ahead.Store(int64(300 * 24 * time.Hour))
	waitRestart(t, s, child)
	wantRunning(t, c, container)
	if now := s.StreamCertificate(); now.Equal(first) || now.NotBefore.Before(first.NotAfter.AddDate(0, 0, -100)) {
		t.Errorf("certificate from %s was followed by one from %s", first.NotBefore, now.NotBefore)
	}
	stop()
	s, _ = supervise(t, s.options)
	if !s.StreamCertificate().NotBefore.Before(time.Now()) {
		t.Error("the certificate of the future was kept")
	}
	wantRunning(t, dial(t, s), container)
}

func TestSecondRuntimeInOneDirectoryIsRefused(t *testing.T) {
	s, _ := supervise(t, e2eOptions(t))
	out, err := exec.Command(os.Args[0], "containerd", "--config", s.options.configFile()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another containerd runs in") {
		t.Errorf("error %v, output %s", err, out)
	}
}

func TestPurge(t *testing.T) {
	o := e2eOptions(t)
	s, stop := supervise(t, o)
	importTestImage(t, s)
	c := dial(t, s)
	_, container := startPod(t, s, c)
	wantRunning(t, c, container)
	stop() // containers and shims are left

	shims := func() (pids []int) {
		if err := eachProcess(func(pid int, argv []string) {
			if strings.HasSuffix(argv[0], "containerd-shim-runc-v2") && strings.Contains(strings.Join(argv, " "), o.DataDir) {
				pids = append(pids, pid)
			}
		}); err != nil {
			t.Fatal(err)
		}
		return pids
	}
	states, err := runcStates(o.DataDir)
	if err != nil || len(states) != 2 || len(shims()) != 1 {
		t.Fatalf("before: %d containers, %d shims, error %v; want 2 and 1", len(states), len(shims()), err)
	}
	for range 2 { // it is idempotent
		if err := Purge(t.Context(), o.DataDir, cgroupOf(o.DataDir)); err != nil {
			t.Fatal(err)
		}
	}
	if left := shims(); len(left) > 0 {
		t.Errorf("shims left: %v", left)
	}
	for _, st := range states {
		if start, err := startTicks(st.PID); err == nil && start == st.StartTicks {
			t.Errorf("process %d of container %s is left", st.PID, st.ID)
		}
		for _, dir := range st.CgroupPaths {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("cgroup left: %s", dir)
			}
		}
	}
	all, err := mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if strings.HasPrefix(m.point, o.DataDir+"/") {
			t.Errorf("mount left: %s", m.point)
		}
	}

	// The next start finds images and no containers that run.
	s, _ = supervise(t, o)
	c = dial(t, s)
	if i, err := c.ImageStatus(t.Context(), &cri.ImageSpec{Image: testImage}); err != nil || i == nil {
		t.Errorf("image after purge: %v, error %v", i, err)
	}
	sandboxes, err := c.ListPodSandbox(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, sb := range sandboxes {
		if sb.State == cri.PodSandboxState_SANDBOX_READY {
			t.Errorf("sandbox after purge: %v", sb)
		}
		if err := c.RemovePodSandbox(t.Context(), sb.Id); err != nil {
			t.Errorf("remove a sandbox that purge has killed: %v", err)
		}
	}
	startPod(t, s, c)
}
