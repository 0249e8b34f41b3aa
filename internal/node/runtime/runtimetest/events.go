package runtimetest

import (
	"context"
	"fmt"
	"strings"
	"sync"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// recorder collects events of one test.
type recorder struct {
	mu     sync.Mutex
	events []*runtime.Event
}

// record listens from now until the test ends.
func (f *fixture) record() *recorder {
	f.Helper()
	r := &recorder{}
	ctx, cancel := context.WithCancel(f.ctx)
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- f.Runtime.Events(ctx, func() { close(ready) }, func(e *runtime.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		})
	}()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Errorf("Events after cancellation: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		f.Fatalf("Events: %v", err)
	}
	return r
}

// of returns the events of the containers and sandboxes named, as text: "pod created, main started, ...".
func (r *recorder) of(names map[string]string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		if name, ok := names[e.ContainerId]; ok {
			what := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT"))
			out = append(out, name+" "+what)
		}
	}
	return strings.Join(out, ", ")
}

func exitEvent(f *fixture) {
	r := f.record()
	_, sandbox, id := f.start(Exit3)
	f.eventually(func() (string, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, e := range r.events {
			if e.ContainerId != id || e.ContainerEventType != cri.ContainerEventType_CONTAINER_STOPPED_EVENT {
				continue
			}
			// The event tells the whole pod, so that the agent need not ask.
			if e.PodSandboxStatus.GetId() != sandbox || len(e.ContainersStatuses) != 1 {
				return fmt.Sprintf("event without its pod: %v", e), false
			}
			s := e.ContainersStatuses[0]
			return fmt.Sprintf("event with status %v", s), s.State == cri.ContainerState_CONTAINER_EXITED && s.ExitCode == 3 && s.Reason == "Error"
		}
		return fmt.Sprintf("no event of the end among %d", len(r.events)), false
	})
	if s := f.state(id, cri.ContainerState_CONTAINER_EXITED); s.ExitCode != 3 {
		f.Errorf("exit code: %v", s)
	}
}

func eventOrder(f *fixture) {
	r := f.record()
	_, sandbox, id := f.start(Forever)
	f.must(f.Runtime.StopContainer(f.ctx, id, 0))
	f.must(f.Runtime.RemoveContainer(f.ctx, id))
	f.must(f.Runtime.StopPodSandbox(f.ctx, sandbox))
	f.must(f.Runtime.RemovePodSandbox(f.ctx, sandbox))
	container := map[string]string{id: "main"}
	pod := map[string]string{sandbox: "pod"}
	const wantContainer = "main created, main started, main stopped, main deleted"
	const wantPod = "pod created, pod started, pod stopped, pod deleted"
	f.eventually(func() (string, bool) {
		gotContainer, gotPod := r.of(container), r.of(pod)
		return gotContainer + "; " + gotPod, gotContainer == wantContainer && gotPod == wantPod
	})
}
