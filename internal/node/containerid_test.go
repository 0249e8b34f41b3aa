package node

import (
	"context"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// called is a runtime that calls itself something.
type called struct {
	runtime.Runtime
	name string
}

func (c called) Version(ctx context.Context) (*cri.VersionResponse, error) {
	v, err := c.Runtime.Version(ctx)
	if v != nil {
		v.RuntimeName = c.name
	}
	return v, err
}

func TestContainerIDsNameTheRuntime(t *testing.T) {
	for _, name := range []string{"containerd", "cri-o"} {
		t.Run(name, func(t *testing.T) {
			opts := runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {RunsFor: 20 * time.Second, ExitCode: 1}})}
			inBubble(t, opts, func(w *world) {
				w.create(testPod("p"))
				w.wait(25 * time.Second)
				s := w.pod("p").Status.ContainerStatuses[0]
				if s.ContainerID != name+"://"+w.rt.ContainerIDs()["p/c"] {
					t.Errorf("the container is called %s", s.ContainerID)
				}
				if last := s.LastTerminationState.Terminated; last == nil || !strings.HasPrefix(last.ContainerID, name+"://") {
					t.Errorf("the run before is called %+v", last)
				}
				// What an agent that is restarted finds in the status it takes for its own.
				w.stop()
				w.start()
				w.wait(time.Second)
				if now := w.pod("p").Status.ContainerStatuses[0]; now.ContainerID != s.ContainerID || now.RestartCount != s.RestartCount {
					t.Errorf("after a restart of the agent: %+v, before: %+v", now, s)
				}
			}, func(c *Config) { c.Runtime = called{c.Runtime, name} })
		})
	}
}
