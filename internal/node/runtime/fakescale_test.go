package runtime_test

import (
	"context"
	"fmt"
	goruntime "runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// runPod starts one pod with one container on a fake.
func runPod(tb testing.TB, f *runtime.Fake, name string) (sandbox, container string) {
	tb.Helper()
	ctx := context.Background()
	pod := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: name, Uid: name}}
	sandbox, err := f.RunPodSandbox(ctx, pod, "")
	if err != nil {
		tb.Fatal(err)
	}
	container, err = f.CreateContainer(ctx, sandbox, &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: "app"},
	}, pod)
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.StartContainer(ctx, container); err != nil {
		tb.Fatal(err)
	}
	return sandbox, container
}

func TestFakeTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := runtime.NewFake(runtime.FakeOptions{
			Images: []string{"app"}, SandboxDelay: 100 * time.Millisecond,
			Behave: func(*cri.PodSandboxConfig, *cri.ContainerConfig) runtime.Behaviour {
				return runtime.Behaviour{StartDelay: time.Second, RunsFor: time.Hour, ExitCode: 2, StopTakes: 10 * time.Second, StopExitCode: 143}
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var events []*runtime.Event
		go f.Events(ctx, func() {}, func(e *runtime.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		})
		defer cancel()
		synctest.Wait()

		began := time.Now()
		_, byItself := runPod(t, f, "a")
		if took := time.Since(began); took != 1100*time.Millisecond {
			t.Errorf("a pod took %v to start, want 1.1s", took)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		synctest.Wait()
		if s, _ := f.ContainerStatus(ctx, byItself); s.State != cri.ContainerState_CONTAINER_RUNNING {
			t.Errorf("before its time: %v", s)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if s, _ := f.ContainerStatus(ctx, byItself); s.State != cri.ContainerState_CONTAINER_EXITED || s.ExitCode != 2 || s.Reason != "Error" {
			t.Errorf("after its time: %v", s)
		}
		mu.Lock()
		if last := events[len(events)-1]; last.ContainerId != byItself || last.ContainerEventType != cri.ContainerEventType_CONTAINER_STOPPED_EVENT {
			t.Errorf("last event: %v", last)
		}
		mu.Unlock()

		for _, stop := range []struct {
			grace, takes time.Duration
			code         int32
		}{{30 * time.Second, 10 * time.Second, 143}, {2 * time.Second, 2 * time.Second, 137}, {0, 0, 137}} {
			_, id := runPod(t, f, fmt.Sprint("b", stop.grace))
			began := time.Now()
			if err := f.StopContainer(ctx, id, stop.grace); err != nil {
				t.Fatal(err)
			}
			if s, _ := f.ContainerStatus(ctx, id); time.Since(began) != stop.takes || s.ExitCode != stop.code {
				t.Errorf("stop within %v took %v and gave %d; want %v and %d", stop.grace, time.Since(began), s.ExitCode, stop.takes, stop.code)
			}
		}
	})
}

func TestFakeFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := ""
		f := runtime.NewFake(runtime.FakeOptions{Images: []string{"app"}, Fail: func(method, id string) error {
			if method == refuse {
				return fmt.Errorf("scripted: %s %s", method, id)
			}
			return nil
		}})
		sandbox, id := runPod(t, f, "pod")
		refuse = "StopContainer"
		if err := f.StopContainer(t.Context(), id, time.Second); err == nil || err.Error() != "scripted: StopContainer "+id {
			t.Errorf("scripted failure: %v", err)
		}
		refuse = ""

		ended := make(chan error, 1)
		go func() { ended <- f.Events(t.Context(), func() {}, func(*runtime.Event) {}) }()
		synctest.Wait()
		f.SetDown(true)
		if err := <-ended; !runtime.IsUnavailable(err) {
			t.Errorf("the stream of a runtime that went down: %v", err)
		}
		if _, err := f.Status(t.Context()); !runtime.IsUnavailable(err) {
			t.Errorf("a call to a runtime that is down: %v", err)
		}
		f.SetDown(false)
		if s, err := f.ContainerStatus(t.Context(), id); err != nil || s.State != cri.ContainerState_CONTAINER_RUNNING {
			t.Errorf("a container after the runtime's restart: %v, %v", s, err)
		}
		if err := f.KillSandbox(sandbox); err != nil {
			t.Fatal(err)
		}
		if s, _ := f.PodSandboxStatus(t.Context(), sandbox); s.State != cri.PodSandboxState_SANDBOX_NOTREADY {
			t.Errorf("a sandbox that was killed: %v", s)
		}
		if s, _ := f.ContainerStatus(t.Context(), id); s.ExitCode != 137 {
			t.Errorf("a container of a sandbox that was killed: %v", s)
		}
	})
}

func TestFakeAddresses(t *testing.T) {
	f := runtime.NewFake(runtime.FakeOptions{PodCIDR: "10.1.0.0/29,fd00:1::/120"})
	ctx := t.Context()
	run := func(name string) (string, *cri.PodSandboxStatus, error) {
		id, err := f.RunPodSandbox(ctx, &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: name}}, "")
		if err != nil {
			return "", nil, err
		}
		s, err := f.PodSandboxStatus(ctx, id)
		return id, s, err
	}
	// 10.1.0.0/29 has .2 to .7: the network's and the gateway's address are left out.
	var ids []string
	for i := range 6 {
		id, s, err := run(fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		want4, want6 := fmt.Sprintf("10.1.0.%d", i+2), fmt.Sprintf("fd00:1::%d", i+2)
		if s.Network.Ip != want4 || len(s.Network.AdditionalIps) != 1 || s.Network.AdditionalIps[0].Ip != want6 {
			t.Errorf("addresses of pod %d: %v, want %s and %s", i, s.Network, want4, want6)
		}
	}
	if _, s, err := run("too many"); err == nil {
		t.Errorf("an address out of nothing: %v", s)
	}
	if err := f.RemovePodSandbox(ctx, ids[3]); err != nil {
		t.Fatal(err)
	}
	if _, s, err := run("next"); err != nil || s.Network.Ip != "10.1.0.5" {
		t.Errorf("after one was given back: %v, %v; want 10.1.0.5", s, err)
	}
	if err := f.UpdateRuntimeConfig(ctx, "10.2.0.0/24"); err != nil {
		t.Fatal(err)
	}
	if _, s, err := run("other"); err != nil || s.Network.Ip != "10.2.0.2" {
		t.Errorf("after the CIDR changed: %v, %v; want 10.2.0.2", s, err)
	}
	if err := f.UpdateRuntimeConfig(ctx, "10.2.0.0"); err == nil {
		t.Error("a CIDR that is none was taken")
	}
}

// BenchmarkFakePod measures what a pod costs on hollow nodes with 20 pods each: time to start, and memory to keep.
func BenchmarkFakePod(b *testing.B) {
	const perNode = 20
	names := make([]string, perNode)
	for i := range names {
		names[i] = fmt.Sprint("pod-", i)
	}
	var before, after goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&before)
	goroutines := goruntime.NumGoroutine()
	var nodes []*runtime.Fake
	pods := 0
	for b.Loop() {
		if pods%perNode == 0 {
			nodes = append(nodes, runtime.NewFake(runtime.FakeOptions{Images: []string{"app"}}))
		}
		runPod(b, nodes[len(nodes)-1], names[pods%perNode])
		pods++
	}
	if n := goruntime.NumGoroutine(); n != goroutines {
		b.Errorf("%d goroutines for %d pods", n-goroutines, pods)
	}
	goruntime.GC()
	goruntime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(pods), "B/pod-kept")
	goruntime.KeepAlive(nodes)
}
