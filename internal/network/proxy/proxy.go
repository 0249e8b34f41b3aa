// Package proxy keeps the node's nftables in step with Services and EndpointSlices (kube-proxy's job).
//
// What flows through it: watch events mark Services dirty; the one loop plans the dirty ones from the shared copy
// (package services), and writes what changed in one transaction. The first change is written at once, further ones
// at most every [Config.Window], so that a burst costs a few transactions and a single change no delay. What must stay true:
// only the loop touches the table; nothing runs when nothing changes; before everything has been seen, nothing that an
// earlier run wrote is taken away.
package proxy

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

// Kernel is what the proxy writes to: services.Kernel, or a fake one in tests.
type Kernel interface {
	Exists() (bool, error)
	Rewrite(services.Changes) error
	Apply(services.Changes) error
	Affinity() ([]services.Remembered, error)
	Forget([]services.Remembered) error
	Watch(ctx context.Context, deleted func()) error
}

// Config is what a Proxy needs.
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

// Proxy writes the node's Services. Make one with New and call Run once.
type Proxy struct {
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

// change is what one batch of watch events told.
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

// New returns a proxy.
func New(cfg Config) *Proxy {
	if cfg.Window == 0 {
		cfg.Window = DefaultWindow
	}
	p := &Proxy{cfg: cfg, changes: make(chan change), requests: make(chan request), deleted: make(chan struct{}, 1), ready: make(chan struct{}),
		table: services.NewTable(), dirty: map[api.Key]struct{}{}, health: newHealthServers(cfg.Log)}
	for owner, elements := range cfg.HostPorts {
		p.table.Set(hostPortOwner(owner), elements)
	}
	return p
}

// Ready is closed once all Services known at the start work.
func (p *Proxy) Ready() <-chan struct{} { return p.ready }

// SetHostPorts replaces the elements of owner's host ports and returns when the kernel has them.
func (p *Proxy) SetHostPorts(ctx context.Context, owner string, elements []services.Element) error {
	r := request{owner: owner, elements: elements, done: make(chan error, 1)}
	select {
	case p.requests <- r:
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
func (p *Proxy) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { p.watch(ctx) })
	wg.Go(func() { p.watchKernel(ctx) })
	defer p.health.close()
	p.begin()
	return p.loop(ctx)
}

// begin writes the fixed rules if there are none yet: pods can reach the world before the API was heard. An earlier run's table
// stays as it is until everything is known.
func (p *Proxy) begin() {
	exists, err := p.cfg.Kernel.Exists()
	if err == nil && !exists {
		all := p.table.All()
		if err = p.cfg.Kernel.Rewrite(all); err == nil {
			p.table.Rewritten(all)
			p.written = true
		}
	}
	if err != nil {
		p.cfg.Log.Error("nftables cannot be written yet", "err", err)
	}
}

// loop is the only user of the table.
func (p *Proxy) loop(ctx context.Context) error {
	var timer, idle <-chan time.Time
	var waiting []request
	var next time.Time // earliest time of the next transaction
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-p.changes:
			p.observe(c)
		case r := <-p.requests:
			p.table.Set(hostPortOwner(r.owner), r.elements)
			waiting = append(waiting, r)
		case <-p.deleted:
			p.checkTable()
		case <-timer:
			timer = nil
		case <-idle:
			idle = nil
			p.deleteIdle()
			continue
		}
		if !p.known() && !p.written {
			continue
		}
		if wait := time.Until(next); wait > 0 {
			if timer == nil {
				timer = time.After(wait)
			}
			continue
		}
		err := p.step(ctx)
		next = time.Now().Add(p.cfg.Window)
		if err != nil {
			p.cfg.Log.Error("writing Services failed, trying again", "err", err)
			next = time.Now().Add(retryTime)
			timer = time.After(retryTime)
		}
		if idle = nil; !p.table.Idle().Empty() {
			idle = time.After(idleTime)
		}
		for _, r := range waiting {
			r.done <- err
		}
		waiting = nil
	}
}

// deleteIdle deletes the picker chains that nobody uses.
func (p *Proxy) deleteIdle() {
	if c := p.table.Idle(); p.written && !c.Empty() {
		if err := p.cfg.Kernel.Apply(c); err != nil {
			p.cfg.Log.Warn("deleting unused nftables chains failed", "err", err)
			return
		}
		p.table.Written(c)
	}
}

// checkTable makes the next step write everything anew if the table is gone.
func (p *Proxy) checkTable() {
	if exists, err := p.cfg.Kernel.Exists(); err == nil && !exists && p.written {
		p.cfg.Log.Warn("somebody deleted the nftables table, writing it anew")
		p.written = false
	}
}

// known says that everything has been seen at least once.
func (p *Proxy) known() bool { return p.synced[0] && p.synced[1] }

// observe takes in a batch of events.
func (p *Proxy) observe(c change) {
	if c.reset {
		p.synced[c.watch] = false
		for _, owner := range p.table.Owners() {
			if key, ok := serviceOf(owner); ok {
				p.dirty[key] = struct{}{}
			}
		}
	}
	for _, key := range c.keys {
		p.dirty[key] = struct{}{}
	}
	if c.synced {
		p.synced[c.watch] = true
	}
}

// step plans what is dirty and writes the difference.
func (p *Proxy) step(ctx context.Context) error {
	if p.known() {
		for key := range p.dirty {
			if err := p.plan(ctx, key); err != nil {
				return err
			}
			delete(p.dirty, key)
		}
	}
	if !p.written {
		return p.rewrite()
	}
	c := p.table.Changes()
	if c.Empty() {
		p.reached()
		return nil
	}
	sticky := p.table.Sticky(c)
	if err := p.cfg.Kernel.Apply(c); err != nil {
		// Somebody else changed the table (nft flush ruleset is what firewalls do): write it anew.
		p.cfg.Log.Warn("nftables table was not as expected, writing it anew", "err", err)
		p.written = false
		return p.rewrite()
	}
	p.table.Written(c)
	p.reached()
	p.deleteFlows(p.table.StaleFlows(c))
	if sticky {
		p.forget()
	}
	return nil
}

// rewrite replaces the whole kernel table.
func (p *Proxy) rewrite() error {
	all := p.table.All()
	if err := p.cfg.Kernel.Rewrite(all); err != nil {
		return err
	}
	p.table.Rewritten(all)
	p.written = true
	p.reached()
	p.deleteFlows([]services.FlowFilter{services.Strays{Table: p.table}})
	p.forget()
	return nil
}

func (p *Proxy) deleteFlows(flows []services.FlowFilter) {
	if err := p.cfg.DeleteFlows(flows); err != nil {
		p.cfg.Log.Warn("UDP clients may stay with an endpoint that is gone until they pause for two minutes", "err", err)
	}
}

// reached closes ready the first time that all known Services are in the kernel.
func (p *Proxy) reached() {
	select {
	case <-p.ready:
	default:
		if p.known() && len(p.dirty) == 0 {
			close(p.ready)
		}
	}
}

// forget makes clients with session affinity leave endpoints that are gone.
func (p *Proxy) forget() {
	remembered, err := p.cfg.Kernel.Affinity()
	if err == nil {
		err = p.cfg.Kernel.Forget(p.table.Stale(remembered))
	}
	if err != nil {
		p.cfg.Log.Warn("clients with session affinity may stay with an endpoint that is gone", "err", err)
	}
}

// plan computes the elements of one Service from the shared copy.
func (p *Proxy) plan(ctx context.Context, key api.Key) error {
	svc, err := client.Get[*corev1.Service](ctx, p.cfg.Client, key)
	if apierrors.IsNotFound(err) {
		p.table.Set(serviceOwner(key), nil)
		p.health.set(key, nil)
		return nil
	}
	if err != nil {
		return err
	}
	epSlices, err := client.List[*discoveryv1.EndpointSlice](ctx, p.cfg.Client,
		client.ListOptions{Namespace: key.Namespace, Index: client.IndexService, Value: key.Namespace + "/" + key.Name})
	if err != nil {
		return err
	}
	part := services.Plan(svc, epSlices, p.cfg.Node)
	p.table.Set(serviceOwner(key), part.Elements)
	p.health.set(key, part.Health)
	return nil
}
