package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/node/events"
	"github.com/knarr-io/knarr/internal/node/images"
	"github.com/knarr-io/knarr/internal/node/ledger"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/sources"
	"github.com/knarr-io/knarr/internal/node/stats"
	"github.com/knarr-io/knarr/internal/node/task"
)

// Agent runs the pods of one node.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	rt      runtime.Runtime
	volumes Volumes
	cgroups Cgroups
	prober  Prober
	tasks   task.Group // every goroutine but Run's own
	events  *events.Recorder
	ledger  *ledger.Ledger
	status  *statusWriter
	images  *images.Store
	sources *sources.Sources
	dns     podspec.DNS
	userns  userNamespaces
	stats   stats.Collector
	disks   disks
	// imagesChecked is when the disk was last looked at for images to remove.
	imagesChecked time.Time
	// evicting says that it is being looked whether pods have to be evicted.
	evicting atomic.Bool
	// booted is when the machine started; endpoints answer [Agent.ServeNode].
	booted    time.Time
	endpoints func() http.Handler

	capacity, allocatable corev1.ResourceList

	mu       sync.Mutex
	workers  map[types.UID]*worker
	byKey    map[api.Key]*worker
	node     *corev1.Node
	deleted  bool // the node, for good
	pressure lifecycle.Held
	// synced: the API's pods are known; listed: the runtime's are, and found says which it had then.
	synced, listed bool
	found          map[types.UID]orphan
}

// New returns an agent; [Agent.Run] runs it.
func New(cfg Config) (*Agent, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger.With("component", "node", "node", cfg.NodeName), rt: cfg.Runtime,
		volumes: cfg.volumes(), prober: cfg.prober(),
		workers: map[types.UID]*worker{}, byKey: map[api.Key]*worker{},
	}
	var err error
	if a.cgroups, err = cfg.cgroups(); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	a.dns = podspec.DNS{ClusterDNS: cfg.ClusterDNS, ClusterDomain: cfg.ClusterDomain}
	if !cfg.Hollow {
		if f, err := os.Open(cfg.ResolvConf); err == nil {
			a.dns.Host, err = podspec.ParseResolvConf(f)
			f.Close()
			if err != nil {
				return nil, fmt.Errorf("node: reading %s: %w", cfg.ResolvConf, err)
			}
		}
	}
	if err := a.measure(); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	a.events = events.New(events.Settings{Client: cfg.Client, Tasks: &a.tasks, Node: cfg.NodeName, Quiet: cfg.Hollow})
	a.status = newStatusWriter(a)
	a.sources = sources.New(sources.Settings{Client: cfg.Client, Tasks: &a.tasks, Tokens: cfg.Tokens, Log: a.log, Hollow: cfg.Hollow})
	a.images = images.New(images.Settings{Runtime: cfg.Runtime, Events: a.events, Secrets: a.sources, Log: a.log})
	a.ledger = ledger.New(a.allocatable, &a.tasks)
	a.userns.load(&cfg)
	a.stats.Measure, a.endpoints = a.sample, sync.OnceValue(a.newEndpoints)
	if !cfg.Hollow {
		a.booted = machine.BootTime()
	}
	return a, nil
}

// Run runs the agent until ctx is cancelled, and returns nil then. The containers keep running.
func (a *Agent) Run(ctx context.Context) error {
	a.tasks.Open(ctx)
	a.log.Info("node agent starting", "maxPods", a.cfg.MaxPods, "cpu", a.allocatable.Cpu().String(), "memory", a.allocatable.Memory().String())
	a.tasks.Go(func() { a.heartbeats(ctx) })
	a.tasks.Go(func() { a.watchRuntime(ctx) })
	a.tasks.Go(func() { a.watchPods(ctx) })
	<-ctx.Done()
	a.tasks.Close()
	for _, w := range a.allWorkers() {
		w.stopTimer()
	}
	a.tasks.Wait()
	return nil
}

// snapshot returns all workers. a.mu must be held.
func (a *Agent) snapshot() []*worker {
	out := make([]*worker, 0, len(a.workers))
	for _, w := range a.workers {
		out = append(out, w)
	}
	return out
}

func (a *Agent) allWorkers() []*worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.snapshot()
}

// pods returns the pods of all workers.
func (a *Agent) pods() []*corev1.Pod {
	var out []*corev1.Pod
	for _, w := range a.allWorkers() {
		out = append(out, w.podNow())
	}
	return out
}

func (a *Agent) worker(uid types.UID) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.workers[uid]
}

// forget ends the bookkeeping of a pod of which nothing is left.
func (a *Agent) forget(w *worker) {
	w.stopTimer()
	a.mu.Lock()
	if a.workers[w.uid] == w {
		delete(a.workers, w.uid)
	}
	if a.byKey[w.key] == w {
		delete(a.byKey, w.key)
	}
	a.mu.Unlock()
	a.sources.Release(w)
	a.ledger.Release(w.uid)
	a.userns.release(w.uid)
}

// measure finds out what the machine has and what of it pods may use.
func (a *Agent) measure() error {
	a.capacity = a.cfg.Capacity.DeepCopy()
	if a.capacity == nil {
		a.capacity = corev1.ResourceList{}
	}
	reserved := a.cfg.Reserved
	if !a.cfg.Hollow {
		if err := machine.Measure(a.capacity, a.cfg.DataDir); err != nil {
			return err
		}
		if reserved == nil {
			reserved = machine.DefaultReserved()
		}
	}
	machine.Default(a.capacity, corev1.ResourcePods, *resource.NewQuantity(int64(a.cfg.MaxPods), resource.DecimalSI))
	var err error
	a.allocatable, err = machine.Allocatable(a.capacity, reserved)
	return err
}
