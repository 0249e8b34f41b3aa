// Package balance keeps the node's nftables in step with Services and EndpointSlices (kube-proxy's job).
//
// What flows through it: watch events mark Services dirty; the one loop plans the dirty ones from the shared copy
// (package services), and writes what changed in one transaction. The first change is written at once, further ones
// at most every [Config.Window], so that a burst costs a few transactions and a single change no delay. What must stay true:
// only the loop touches the table; nothing runs when nothing changes; before everything has been seen, nothing that an
// earlier run wrote is taken away.
package balance

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
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
	Exists() (bool, error)
	Rewrite(services.Changes) error
	Apply(services.Changes) error
	Affinity() ([]services.Remembered, error)
	Forget([]services.Remembered) error
	Watch(ctx context.Context, deleted func()) error
}

// Config is what a Balancer needs.
type Config struct {
	Client client.Client
	Kernel Kernel
	Node   services.Node
	// DeleteFlows removes stale UDP flows, see services.DeleteFlows.
	DeleteFlows func([]services.FlowFilter) error
	// HostPorts are the elements of host ports in use at the start, by owner.
	HostPorts map[string][]services.Element
	Window    time.Duration // 0 means DefaultWindow
	Log       *slog.Logger
}

// Balancer writes the node's Services. Make one with New and call Run once.
type Balancer struct {
	cfg      Config
	changes  chan change
	requests chan request
	deleted  chan struct{} // somebody may have deleted the table
	ready    chan struct{}

	// The loop's own.
	table   *services.Table
	dirty   map[api.Key]struct{}
	synced  [2]bool // per watch
	written bool    // the kernel has what table says it has
	health  *healthServers
}

// change is what one batch of watch events brought.
type change struct {
	watch  int
	keys   []api.Key // Services to plan again
	synced bool
	reset  bool
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
		table: services.NewTable(), dirty: map[api.Key]struct{}{}, health: newHealthServers(cfg.Log)}
	for owner, elements := range cfg.HostPorts {
		b.table.Set(hostPortOwner(owner), elements)
	}
	return b
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
	wg.Go(func() { b.watchKernel(ctx) })
	defer b.health.close()
	b.begin()
	return b.loop(ctx)
}

// begin writes the fixed rules if there are none yet: pods can reach the world before the API was heard. An earlier run's table
// stays as it is until everything is known.
func (b *Balancer) begin() {
	exists, err := b.cfg.Kernel.Exists()
	if err == nil && !exists {
		all := b.table.All()
		if err = b.cfg.Kernel.Rewrite(all); err == nil {
			b.table.Rewritten(all)
			b.written = true
		}
	}
	if err != nil {
		b.cfg.Log.Error("nftables cannot be written yet", "err", err)
	}
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
			b.table.Set(hostPortOwner(r.owner), r.elements)
			waiting = append(waiting, r)
		case <-b.deleted:
			b.checkTable()
		case <-timer:
			timer = nil
		case <-idle:
			idle = nil
			b.deleteIdle()
			continue
		}
		if !b.known() && !b.written {
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
		if idle = nil; !b.table.Idle().Empty() {
			idle = time.After(idleTime)
		}
		for _, r := range waiting {
			r.done <- err
		}
		waiting = nil
	}
}

// deleteIdle deletes the picker chains that nobody uses.
func (b *Balancer) deleteIdle() {
	if c := b.table.Idle(); b.written && !c.Empty() {
		if err := b.cfg.Kernel.Apply(c); err != nil {
			b.cfg.Log.Warn("deleting unused nftables chains failed", "err", err)
			return
		}
		b.table.Written(c)
	}
}

// checkTable makes the next step write everything anew if the table is gone.
func (b *Balancer) checkTable() {
	if exists, err := b.cfg.Kernel.Exists(); err == nil && !exists && b.written {
		b.cfg.Log.Warn("somebody deleted the nftables table, writing it anew")
		b.written = false
	}
}

// known reports whether everything has been seen at least once.
func (b *Balancer) known() bool { return b.synced[0] && b.synced[1] }

// observe takes in a batch of events.
func (b *Balancer) observe(c change) {
	if c.reset {
		b.synced[c.watch] = false
		for _, owner := range b.table.Owners() {
			if key, ok := serviceOf(owner); ok {
				b.dirty[key] = struct{}{}
			}
		}
	}
	for _, key := range c.keys {
		b.dirty[key] = struct{}{}
	}
	if c.synced {
		b.synced[c.watch] = true
	}
}

// step plans what is dirty and writes the difference.
func (b *Balancer) step(ctx context.Context) error {
	if b.known() {
		for key := range b.dirty {
			if err := b.plan(ctx, key); err != nil {
				return err
			}
			delete(b.dirty, key)
		}
	}
	if !b.written {
		return b.rewrite()
	}
	c := b.table.Changes()
	if c.Empty() {
		b.reached()
		return nil
	}
	sticky := b.table.Sticky(c)
	if err := b.cfg.Kernel.Apply(c); err != nil {
		// Somebody else changed the table (nft flush ruleset is what firewalls do): write it anew.
		b.cfg.Log.Warn("nftables table was not as expected, writing it anew", "err", err)
		b.written = false
		return b.rewrite()
	}
	b.table.Written(c)
	b.reached()
	b.deleteFlows(b.table.StaleFlows(c))
	if sticky {
		b.forget()
	}
	return nil
}

// rewrite replaces the whole kernel table.
func (b *Balancer) rewrite() error {
	all := b.table.All()
	if err := b.cfg.Kernel.Rewrite(all); err != nil {
		return err
	}
	b.table.Rewritten(all)
	b.written = true
	b.reached()
	b.deleteFlows([]services.FlowFilter{services.Strays{Table: b.table}})
	b.forget()
	return nil
}

func (b *Balancer) deleteFlows(flows []services.FlowFilter) {
	if err := b.cfg.DeleteFlows(flows); err != nil {
		b.cfg.Log.Warn("UDP clients may stay with an endpoint that is gone until they pause for two minutes", "err", err)
	}
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

// forget makes clients with session affinity leave endpoints that are gone.
func (b *Balancer) forget() {
	remembered, err := b.cfg.Kernel.Affinity()
	if err == nil {
		err = b.cfg.Kernel.Forget(b.table.Stale(remembered))
	}
	if err != nil {
		b.cfg.Log.Warn("clients with session affinity may stay with an endpoint that is gone", "err", err)
	}
}

// plan computes the elements of one Service from the shared copy.
func (b *Balancer) plan(ctx context.Context, key api.Key) error {
	svc, err := client.Get[*corev1.Service](ctx, b.cfg.Client, key)
	if apierrors.IsNotFound(err) {
		b.table.Set(serviceOwner(key), nil)
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
	part := services.Plan(svc, epSlices, b.cfg.Node)
	b.table.Set(serviceOwner(key), part.Elements)
	b.health.set(key, part.Health)
	return nil
}
