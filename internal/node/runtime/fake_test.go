package runtime_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/runtime/runtimetest"
)

func TestFakeSuite(t *testing.T) {
	f := runtime.NewFake(runtime.FakeOptions{
		Images: []string{"docker.io/knarr/test:1"},
		Behave: func(_ *cri.PodSandboxConfig, c *cri.ContainerConfig) runtime.Behaviour {
			if slices.Equal(c.Command, runtimetest.Exit3) {
				return runtime.Behaviour{RunsFor: -1, ExitCode: 3}
			}
			return runtime.Behaviour{MilliCPU: 10, MemoryBytes: 1 << 20}
		},
		Exec: func(_ *cri.ContainerStatus, cmd []string) (*runtime.ExecResult, error) {
			switch {
			case cmd[0] == "/bin/sleep":
				return nil, status.Error(codes.DeadlineExceeded, "it sleeps")
			case len(cmd) > 1:
				return &runtime.ExecResult{Stdout: []byte("out\n"), Stderr: []byte("err\n"), ExitCode: 3}, nil
			}
			return &runtime.ExecResult{}, nil
		},
	})
	runtimetest.Run(t, runtimetest.Config{Runtime: f, Image: "docker.io/knarr/test:1"})
	if left, err := f.ListPodSandbox(t.Context(), nil); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
