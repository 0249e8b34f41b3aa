// Package balance keeps the node's nftables in step with Services and EndpointSlices (kube-proxy's job).
//
// What flows through it: watch events mark Services dirty; the one loop plans the dirty ones from the shared copy
// (package services), once for each address family, and writes what changed in one transaction per family. The first change is written at once, further ones
// at most every [Config.Window], so that a burst costs a few transactions and a single change no delay. What must stay true:
// only the loop touches the table; nothing runs when nothing changes; before everything has been seen, nothing that an
// earlier run wrote is taken away. Tests: TestNothingHappensWhenNothingChanges, TestEarlierTableStaysUntilEverythingIsKnown,
// TestFirstChangeAtOnceBurstInOneTransaction.
package balance

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/services"
)

// DefaultWindow is the shortest time between two transactions.
const DefaultWindow = 15 * time.Millisecond

// idleTime is how long nothing must have changed until picker chains that nobody uses are deleted.
const idleTime = 2 * time.Second

// retryTime is the pause after a transaction that failed.
const retryTime = time.Second

// Kernel is what a Balancer writes to: services.Kernel, or a fake one in tests.
type Kernel interface {
	Family() nft.Family
	Exists() (bool, error)
	Rewrite(services.Changes) error
	Apply(services.Changes) error
	Affinity() ([]services.Remembered, error)
	Forget([]services.Remembered) error
	Watch(ctx context.Context, deleted func()) error
}

// Config is what a Balancer needs.
type Config struct {
	Client  client.Client
	Kernels []Kernel      // one for each address family
	Node    services.Node // its zone comes from the API
	// DeleteFlows removes stale UDP flows, see services.DeleteFlows.
	DeleteFlows func(nft.Family, []services.FlowFilter) error
	// HostPorts are the elements of host ports in use at the start, by owner.
	HostPorts map[string][]services.Element
	Window    time.Duration // 0 means DefaultWindow
	// Metrics gets kube-proxy's series; nil means nobody.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Balancer writes the node's Services. Make one with New and call Run once.
type Balancer struct {
	cfg      Config
	changes  chan change
	requests chan request
	deleted  chan struct{} // somebody may have deleted the table
	ready    chan struct{}

	// The loop's own.
	sides  []*side
	node   services.Node
	dirty  map[api.Key]struct{}
	synced [numWatches]bool
	health *healthServers
	// metrics counts, and triggers is what it is to time once the kernel has it.
	metrics  *metrics
	triggers []time.Time
}

// The watches.
const (
	watchServices = iota
	watchSlices
	watchNode
	numWatches
)

// change is what one batch of watch events brought.
type change struct {
	watch int
	keys  []api.Key // Services to plan again
	zone  *string   // the node's, where that is what changed
	full  bool      // it is all that the watch has
	// events is how many there are; triggers is when what they are about happened, as far as they say so.
	events   int
	triggers []time.Time
}

// request asks for the elements of one host port owner.
type request struct {
	owner    string
	elements []services.Element
	done     chan error // buffered
}

// New returns a balancer.
func New(cfg Config) *Balancer {
	if cfg.Window == 0 {
		cfg.Window = DefaultWindow
	}
	b := &Balancer{cfg: cfg, changes: make(chan change), requests: make(chan request), deleted: make(chan struct{}, 1), ready: make(chan struct{}),
		node: cfg.Node, dirty: map[api.Key]struct{}{}, health: newHealthServers(cfg.Log), metrics: newMetrics(cfg.Metrics)}
	for _, k := range cfg.Kernels {
		b.sides = append(b.sides, &side{kernel: k, table: services.NewTable(), lacking: map[api.Key]services.Part{}, deleteFlows: cfg.DeleteFlows, log: cfg.Log.With("family", k.Family())})
	}
	for owner, elements := range cfg.HostPorts {
		b.set(hostPortOwner(owner), elements)
	}
	return b
}

// set replaces what owner asks for in all families.
func (b *Balancer) set(owner string, elements []services.Element) {
	for _, s := range b.sides {
		s.table.Set(owner, elementsOf(s.kernel.Family(), elements))
	}
}

// Ready is closed once all Services known at the start work.
func (b *Balancer) Ready() <-chan struct{} { return b.ready }

// SetHostPorts replaces the elements of owner's host ports and returns when the kernel has them.
func (b *Balancer) SetHostPorts(ctx context.Context, owner string, elements []services.Element) error {
	r := request{owner: owner, elements: elements, done: make(chan error, 1)}
	select {
	case b.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run keeps the kernel in step until ctx ends. What it wrote stays.
func (b *Balancer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { b.watch(ctx) })
	for _, side := range b.sides {
		wg.Go(func() { b.watchKernel(ctx, side.kernel) })
	}
	defer b.health.close()
	// Pods can reach the world before the API was heard. An earlier run's table stays as it is until everything is known.
	for _, s := range b.sides {
		s.begin()
	}
	return b.loop(ctx)
}

// loop is the only user of the table.
func (b *Balancer) loop(ctx context.Context) error {
	var timer, idle <-chan time.Time
	var waiting []request
	var next time.Time // earliest time of the next transaction
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-b.changes:
			b.observe(c)
		case r := <-b.requests:
			b.set(hostPortOwner(r.owner), r.elements)
			waiting = append(waiting, r)
		case <-b.deleted:
			for _, s := range b.sides {
				s.check()
			}
		case <-timer:
			timer = nil
		case <-idle:
			idle = nil
			for _, s := range b.sides {
				if !s.deleteIdle() {
					b.metrics.cleanupFailures.WithLabelValues(familyLabel(s.kernel.Family())).Inc()
				}
			}
			continue
		}
		if !b.known() && !b.written() {
			continue
		}
		if wait := time.Until(next); wait > 0 {
			if timer == nil {
				timer = time.After(wait)
			}
			continue
		}
		err := b.step(ctx)
		next = time.Now().Add(b.cfg.Window)
		if err != nil {
			b.cfg.Log.Error("writing Services failed, trying again", "err", err)
			next = time.Now().Add(retryTime)
			timer = time.After(retryTime)
		}
		if idle = nil; b.idle() {
			idle = time.After(idleTime)
		}
		for _, r := range waiting {
			r.done <- err
		}
		waiting = nil
	}
}

// written reports whether an earlier run's tables need not be waited for: each side wrote its own.
func (b *Balancer) written() bool {
	return !slices.ContainsFunc(b.sides, func(s *side) bool { return !s.written })
}

// idle reports whether a picker chain has no user.
func (b *Balancer) idle() bool {
	return slices.ContainsFunc(b.sides, func(s *side) bool { return !s.table.Idle().Empty() })
}

// known reports whether everything has been seen at least once.
func (b *Balancer) known() bool { return !slices.Contains(b.synced[:], false) }

// observe takes in a batch of events.
func (b *Balancer) observe(c change) {
	b.metrics.seen(c)
	b.triggers = append(b.triggers, c.triggers...)
	again := c.full && c.watch != watchNode
	if c.zone != nil && *c.zone != b.node.Zone {
		b.node.Zone = *c.zone
		again = true // the hints of all Services have to be read anew
	}
	if again {
		for key := range b.planned() {
			b.dirty[key] = struct{}{}
		}
	}
	for _, key := range c.keys {
		b.dirty[key] = struct{}{}
	}
	if len(c.keys) > 0 || again {
		for _, s := range b.sides {
			b.metrics.queued.WithLabelValues(familyLabel(s.kernel.Family())).SetToCurrentTime()
		}
	}
	b.synced[c.watch] = b.synced[c.watch] || c.full
}

// planned returns the Services that have elements.
func (b *Balancer) planned() map[api.Key]struct{} {
	out := map[api.Key]struct{}{}
	for _, s := range b.sides {
		for _, owner := range s.table.Owners() {
			if key, ok := serviceOf(owner); ok {
				out[key] = struct{}{}
			}
		}
	}
	return out
}

// step plans what is dirty and writes the difference.
func (b *Balancer) step(ctx context.Context) error {
	start := time.Now()
	if b.known() {
		for key := range b.dirty {
			if err := b.plan(ctx, key); err != nil {
				return err
			}
			delete(b.dirty, key)
		}
	}
	var errs []error
	for _, s := range b.sides {
		full, err := s.step()
		b.metrics.wrote(s.kernel.Family(), full, start, err)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	b.finish()
	b.reached()
	return nil
}

// finish records that the kernel has all that is known.
func (b *Balancer) finish() {
	if !b.known() {
		return
	}
	b.metrics.servicesPending.Set(0)
	b.metrics.slicesPending.Set(0)
	for _, s := range b.sides {
		b.metrics.programmed(s.kernel.Family(), b.triggers)
		internal, external := s.noLocal()
		family := familyLabel(s.kernel.Family())
		b.metrics.noLocal.WithLabelValues("internal", family).Set(float64(internal))
		b.metrics.noLocal.WithLabelValues("external", family).Set(float64(external))
	}
	b.triggers = nil
}

// reached closes ready the first time that all known Services are in the kernel.
func (b *Balancer) reached() {
	select {
	case <-b.ready:
	default:
		if b.known() && len(b.dirty) == 0 {
			close(b.ready)
		}
	}
}

// plan computes the elements of one Service from the shared copy.
func (b *Balancer) plan(ctx context.Context, key api.Key) error {
	svc, err := client.Get[*corev1.Service](ctx, b.cfg.Client, key)
	if apierrors.IsNotFound(err) {
		for _, s := range b.sides {
			s.set(key, services.Part{})
		}
		b.health.set(key, nil)
		return nil
	}
	if err != nil {
		return err
	}
	epSlices, err := client.List[*discoveryv1.EndpointSlice](ctx, b.cfg.Client,
		client.ListOptions{Namespace: key.Namespace, Index: client.IndexService, Value: key.Namespace + "/" + key.Name})
	if err != nil {
		return err
	}
	var health *services.Health
	for _, s := range b.sides {
		part := services.Plan(svc, epSlices, b.node, s.kernel.Family())
		s.set(key, part)
		// A pod with addresses of both families is one endpoint.
		if part.Health != nil && (health == nil || health.LocalEndpoints < part.Health.LocalEndpoints) {
			health = part.Health
		}
	}
	b.health.set(key, health)
	return nil
}
