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
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/stats"
)

// Agent runs the pods of one node.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	rt      runtime.Runtime
	volumes Volumes
	cgroups Cgroups
	prober  Prober
	events  *recorder
	status  *statusWriter
	images  *images
	sources *sources
	dns     podspec.DNS
	userns  userNamespaces
	stats   stats.Collector
	disks   disks
	// evicting says that it is being looked whether pods have to be evicted.
	evicting atomic.Bool
	// booted is when the machine started; endpoints answer [Agent.ServeNode].
	booted    time.Time
	endpoints func() http.Handler

	capacity, allocatable corev1.ResourceList

	mu      sync.Mutex
	ctx     context.Context // Run's
	closing bool
	tasks   sync.WaitGroup // every goroutine but Run's own
	workers map[types.UID]*worker
	byKey   map[api.Key]*worker
	node    *corev1.Node
	deleted bool                // the node, for good
	claims  map[types.UID]claim // what admitted pods hold
	// deferred are pods that wait for room to grow.
	deferred map[types.UID]*worker
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
	a.events, a.status, a.images, a.sources = newRecorder(a), newStatusWriter(a), newImages(a), newSources(a)
	a.userns.load(&cfg)
	a.stats.Measure, a.endpoints = a.sample, sync.OnceValue(a.newEndpoints)
	if !cfg.Hollow {
		a.booted = bootTime()
	}
	return a, nil
}

// Run runs the agent until ctx is cancelled, and returns nil then. The containers keep running.
func (a *Agent) Run(ctx context.Context) error {
	a.mu.Lock()
	a.ctx = ctx
	a.mu.Unlock()
	a.log.Info("node agent starting", "maxPods", a.cfg.MaxPods, "cpu", a.allocatable.Cpu().String(), "memory", a.allocatable.Memory().String())
	a.spawn(func() { a.heartbeats(ctx) })
	a.spawn(func() { a.watchRuntime(ctx) })
	a.spawn(func() { a.watchPods(ctx) })
	<-ctx.Done()
	a.mu.Lock()
	a.closing = true
	workers := a.snapshot()
	a.mu.Unlock()
	for _, w := range workers {
		w.stopTimer()
	}
	a.tasks.Wait()
	return nil
}

// spawn runs f in a goroutine that Run waits for. After the end it does nothing and returns false.
func (a *Agent) spawn(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing || a.ctx == nil {
		return false
	}
	a.tasks.Go(f)
	return true
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
	a.sources.release(w)
	a.release(w.uid)
	a.userns.release(w.uid)
}

// retry is a delay that doubles from 100 ms to 5 s, for streams and calls that fail because the other side is away.
type retry struct{ d time.Duration }

func (r *retry) wait(ctx context.Context) {
	r.d = min(max(2*r.d, 100*time.Millisecond), 5*time.Second)
	t := time.NewTimer(r.d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (r *retry) reset() { r.d = 0 }

// steady returns a context for calls that make something in the runtime: the end of the pod does not cut them off half done, where they
// might leave what nobody sees; the end of the agent does, a little later.
func (a *Agent) steady(ctx context.Context) (context.Context, context.CancelFunc) {
	const patience, atEnd = 2 * time.Minute, 5 * time.Second
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	stop := context.AfterFunc(a.ctx, func() { pause(call, atEnd); cancel() })
	return call, func() { stop(); cancel() }
}
