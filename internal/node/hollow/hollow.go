// Package hollow runs nodes that only pretend: the real agent over the fake runtime, many in one process, to try out a large cluster
// on a small machine and to measure the control plane.
//
// What flows through it: each hollow node registers, keeps its lease and drives its pods as a real one does; containers "start" at
// once, and those of Jobs end soon. What must stay true: nothing on the machine is touched. Tests: TestThousandNodesRegister
// (test/sim), in a bubble that knows no machine; TestContainersOfJobsEnd.
package hollow

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// Config says how many hollow nodes there are and what they claim to have.
type Config struct {
	Count int
	// Client returns the client of the agent of a node.
	Client func(node string) client.Client
	// First is the number of the first node, 0 if there are no others in the cluster.
	First int
	// SandboxDelay is how long a pod takes to start.
	SandboxDelay time.Duration
	// Version is shown as the nodes' kubelet version.
	Version string
	Log     *slog.Logger
}

// maxPods is how many pods a hollow node takes.
const maxPods = 250

// Run runs the nodes until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := cfg.First; i < cfg.First+cfg.Count; i++ {
		agent, err := newAgent(cfg, i)
		if err != nil {
			return fmt.Errorf("hollow node %d: %w", i, err)
		}
		g.Go(func() error { return agent.Run(ctx) })
	}
	g.Go(func() error { releaseVolumes(ctx, cfg); return nil })
	return g.Wait()
}

// Name is the name of hollow node i.
func Name(i int) string { return fmt.Sprintf("hollow-%04d", i) }

func newAgent(cfg Config, i int) (*node.Agent, error) {
	// Blocks of 100.64.0.0/10, which are for carriers' inner networks and so in nobody's way (RFC 6598).
	cidr := fmt.Sprintf("100.%d.%d.0/24", 64+i/256, i%256)
	return node.New(node.Config{
		NodeName: Name(i),
		Client:   cfg.Client(Name(i)),
		Runtime:  runtime.NewFake(runtime.FakeOptions{Name: Name(i), PodCIDR: cidr, SandboxDelay: cfg.SandboxDelay, Behave: behave}),
		Tokens:   noTokens,
		NodeIPs:  []string{fmt.Sprintf("100.127.%d.%d", i/256, i%256)},
		PodCIDRs: []string{cidr},
		MaxPods:  maxPods,
		Capacity: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("256Gi"),
			corev1.ResourcePods: *resource.NewQuantity(maxPods, resource.DecimalSI), corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		},
		Labels:  map[string]string{"knarr.io/hollow": "true", "kubernetes.io/hostname": Name(i)},
		Version: cfg.Version,
		Hollow:  true,
		Logger:  cfg.Log,
	})
}

// jobTime is how long a container of a Job runs.
const jobTime = 20 * time.Millisecond

// behave says what a container does: one of a Job ends by itself, every other one runs until it is stopped.
func behave(pod *cri.PodSandboxConfig, _ *cri.ContainerConfig) runtime.Behaviour {
	if pod.GetLabels()[batchv1.JobNameLabel] == "" {
		return runtime.Behaviour{}
	}
	return runtime.Behaviour{RunsFor: jobTime}
}

// noTokens stands in for token requests: no process would read the token.
func noTokens(context.Context, string, string, *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return &authenticationv1.TokenRequest{}, nil
}
