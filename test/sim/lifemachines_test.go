package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node"
	"github.com/knarr-io/knarr/internal/node/hollow"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

const lifeMachines = 4

// machine is one on which pods run. Its containers outlive its agent, but not its power.
type machine struct {
	runtime *runtime.Fake // nil while it is off
	stop    func()        // stops its agent; nil while none runs
}

// power brings a machine and its agent up, as far as they are not.
func (l *life) power(i int) {
	l.t.Helper()
	m := &l.machines[i]
	if m.stop != nil {
		return
	}
	if m.runtime == nil {
		m.runtime = runtime.NewFake(runtime.FakeOptions{Name: hollow.Name(i), PodCIDR: fmt.Sprintf("100.64.%d.0/24", i), SandboxDelay: 300 * time.Millisecond, Behave: l.behave(l.rng.Uint64())})
	}
	agent, err := node.New(node.Config{
		NodeName: hollow.Name(i), Client: l.agents(hollow.Name(i)), Runtime: m.runtime,
		Tokens: func(context.Context, string, string, *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			return &authenticationv1.TokenRequest{}, nil
		},
		NodeIPs: []string{fmt.Sprintf("100.127.0.%d", i+1)}, PodCIDRs: []string{fmt.Sprintf("100.64.%d.0/24", i)}, MaxPods: 100,
		Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("64Gi"),
			corev1.ResourcePods: resource.MustParse("100"), corev1.ResourceEphemeralStorage: resource.MustParse("1Ti")},
		Version: "v1.37.2+knarr", Hollow: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(l.ctx)
	done := make(chan struct{})
	l.wg.Go(func() {
		defer close(done)
		if err := agent.Run(ctx); err != nil && ctx.Err() == nil {
			l.t.Errorf("an agent failed: %v", err)
		}
	})
	m.stop = func() { cancel(); <-done }
	l.did("machine %d comes up", i)
}

// machine stops a machine's agent, turns the machine off, for good or not, or brings it up again.
func (l *life) machine() {
	i := l.rng.IntN(lifeMachines)
	m := &l.machines[i]
	if m.stop == nil {
		l.power(i)
		return
	}
	m.stop()
	m.stop = nil
	switch l.rng.IntN(5) {
	case 0, 1:
		l.did("the agent of machine %d stops, its containers go on", i)
	case 2, 3:
		m.runtime = nil
		l.did("machine %d is off", i)
	case 4:
		m.runtime = nil
		l.did("machine %d is taken away: %v", i, client.Delete[*corev1.Node](l.ctx, l.Client, api.Key{Name: hollow.Name(i)}, metav1.DeleteOptions{}))
	}
}

// behave lets containers of Jobs end by themselves, one of five with an error, and others take some time to stop.
func (l *life) behave(seed uint64) func(*cri.PodSandboxConfig, *cri.ContainerConfig) runtime.Behaviour {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	return func(pod *cri.PodSandboxConfig, _ *cri.ContainerConfig) runtime.Behaviour {
		mu.Lock()
		defer mu.Unlock()
		b := runtime.Behaviour{StopTakes: time.Duration(rng.IntN(3000)) * time.Millisecond}
		if name := pod.GetMetadata().GetName(); strings.HasPrefix(name, "job-") || strings.HasPrefix(name, "cron-") {
			b.RunsFor = time.Duration(1+rng.IntN(8000)) * time.Millisecond
			if rng.IntN(5) == 0 {
				b.ExitCode = int32(1 + rng.IntN(3))
			}
		}
		return b
	}
}

// running returns the UIDs of the pods that have running containers, by pod name.
func (l *life) running() map[string]map[string]bool {
	out := map[string]map[string]bool{}
	filter := &cri.ContainerFilter{State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}
	for _, m := range l.machines {
		if m.runtime == nil {
			continue
		}
		containers, err := m.runtime.ListContainers(l.ctx, filter)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, c := range containers {
			name := c.Labels[lifecycle.LabelPodName]
			if out[name] == nil {
				out[name] = map[string]bool{}
			}
			out[name][c.Labels[lifecycle.LabelPodUID]] = true
		}
	}
	return out
}
