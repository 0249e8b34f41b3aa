// Package guard keeps NetworkPolicies in force on one node, with nftables.
//
// What flows through it: watches tell of policies and, while there are any, of namespaces and pods; the CNI server tells which addresses
// pods of this node have. The one loop keeps a model of it (package policy) for each address family, and writes what changed in one
// transaction a family. Packets that are forwarded are judged by their connection: who began it, before its source was translated, and
// whom it reached, after its destination was. So answers and errors pass where the connection does, whichever way they go, and a
// connection that a changed policy no longer allows is cut with its next packet: nothing is remembered of it that would have to be
// forgotten (docs/adr/0013).
//
// What must stay true: a pod has its rules before it has a link; a pod of which nothing is known yet is closed; what an earlier run wrote
// stays until everything is known, and is then replaced as a whole; without policies there is no table and nobody watches pods. Tests:
// TestRulesAreThereBeforeAttachReturns, TestEarlierTableStaysUntilEverythingIsKnown, TestNobodyWatchesPodsWithoutPolicies; TestRulesHold,
// TestChangedPolicyCutsConnections, TestNothingPassesWhileRulesAreWritten.
package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// window is the shortest time between two transactions, so that a burst of changes costs few of them.
const window = 5 * time.Millisecond

// retryTime is the pause after a transaction that failed.
const retryTime = time.Second

// Config is what a Guard needs.
type Config struct {
	Client  client.Client
	Kernels []*Kernel // one for each address family
	// Attached are the addresses that pods have from an earlier run.
	Attached []policy.Attachment
	// Metrics gets the guard's figures; nil means nobody.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Guard keeps policies in force. Make one with New and call Run once.
type Guard struct {
	cfg      Config
	changes  chan change
	requests chan request
	reports  chan chan report // each buffered
	deleted  chan struct{}    // somebody may have deleted a table
	ready    chan struct{}
	ended    chan struct{}
	metrics  *metrics

	// The loop's own.
	sides    []*side
	attached map[netip.Addr]policy.Attachment
	synced   [numWatches]bool
	policies standings
	details  *details  // the watches that only policies need; nil without policies
	turns    int       // how many details there were
	seen     time.Time // when the oldest change was seen that the kernel does not have; zero if it has all
}

// request says which addresses a pod has, or that nobody has them any longer.
type request struct {
	attach []policy.Attachment
	detach []netip.Addr
	done   chan error // buffered
}

// New returns a guard.
func New(cfg Config) *Guard {
	g := &Guard{cfg: cfg, changes: make(chan change), requests: make(chan request), deleted: make(chan struct{}, 1), ready: make(chan struct{}), ended: make(chan struct{}),
		attached: map[netip.Addr]policy.Attachment{}, policies: newStandings(), reports: make(chan chan report)}
	for _, k := range cfg.Kernels {
		g.sides = append(g.sides, &side{kernel: k, log: cfg.Log.With("family", k.Family())})
	}
	for _, a := range cfg.Attached {
		g.attached[a.Addr] = a
	}
	g.metrics = newMetrics(cfg.Metrics)
	g.forget()
	return g
}

// forget begins the models anew.
func (g *Guard) forget() {
	for _, s := range g.sides {
		s.model = policy.New(s.kernel.Family())
		for _, a := range g.attached {
			s.model.Attach(a)
		}
		s.written = false
	}
}

// Ready is closed once all policies known at the start are in force.
func (g *Guard) Ready() <-chan struct{} { return g.ready }

// Attach says that a pod is about to have addresses on this node, and returns once the kernel has the rules for them.
func (g *Guard) Attach(ctx context.Context, attachments ...policy.Attachment) error {
	return g.ask(ctx, request{attach: attachments, done: make(chan error, 1)})
}

// Detach says that nobody has these addresses any longer. To one that has ended that is no news: the next one is told who is there.
func (g *Guard) Detach(ctx context.Context, addrs ...netip.Addr) error {
	err := g.ask(ctx, request{detach: addrs, done: make(chan error, 1)})
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

var errEnded = errors.New("network policies are no longer kept in force: Knarr stops")

func (g *Guard) ask(ctx context.Context, r request) error {
	select {
	case g.requests <- r:
	case <-g.ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("waiting for the network policies of the pod: %w", ctx.Err())
	}
	select {
	case err := <-r.done:
		return err
	case <-g.ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("waiting for the network policies of the pod: %w", ctx.Err())
	}
}

// Run keeps the kernel in step until ctx ends. What it wrote stays.
func (g *Guard) Run(ctx context.Context) error {
	defer close(g.ended)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { g.follow(ctx, watchPolicies, 0) })
	for _, s := range g.sides {
		wg.Go(func() { g.watchKernel(ctx, s.kernel) })
	}
	defer func() {
		if g.details != nil {
			g.details.stop()
		}
	}()
	return g.loop(ctx)
}

// loop is the only user of the models and tables.
func (g *Guard) loop(ctx context.Context) error {
	var timer <-chan time.Time
	var waiting []request
	var next time.Time // earliest time of the next transaction
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-g.changes:
			g.observe(ctx, c)
		case r := <-g.requests:
			g.take(r)
			if r.detach != nil { // nothing depends on when those rules go
				r.done <- nil
			} else {
				waiting = append(waiting, r)
			}
		case r := <-g.reports:
			r <- g.report()
			continue
		case <-g.deleted:
			for _, s := range g.sides {
				if s.check() {
					g.policies.lost()
				}
			}
		case <-timer:
			timer = nil
		}
		if !g.known() {
			continue
		}
		if wait := time.Until(next); wait > 0 && g.policies.any() {
			if timer == nil {
				timer = time.After(wait)
			}
			continue
		}
		err := g.step()
		next = time.Now().Add(window)
		if err != nil {
			g.cfg.Log.Error("writing network policies failed, trying again", "err", err)
			next = time.Now().Add(retryTime)
			timer = time.After(retryTime)
		}
		for _, r := range waiting {
			r.done <- err
		}
		waiting = nil
	}
}

// take carries out a request in the models.
func (g *Guard) take(r request) {
	for _, a := range r.attach {
		g.attached[a.Addr] = a
		for _, s := range g.sides {
			s.model.Attach(a)
		}
	}
	for _, addr := range r.detach {
		delete(g.attached, addr)
		for _, s := range g.sides {
			s.model.Detach(addr)
		}
	}
}

// known reports whether everything has been seen that the policies need.
func (g *Guard) known() bool {
	return g.synced[watchPolicies] && (!g.policies.any() || g.synced[watchNamespaces] && g.synced[watchPods])
}

// step writes the difference between the models and the kernel.
func (g *Guard) step() error {
	start := time.Now()
	var errs []error
	for _, s := range g.sides {
		wrote, err := s.step(g.policies.any())
		if wrote || err != nil {
			g.metrics.wrote(start, err)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !g.seen.IsZero() {
		g.metrics.programming.Observe(time.Since(g.seen).Seconds())
		g.seen = time.Time{}
	}
	g.policies.inForce(time.Now())
	g.metrics.policies.Set(float64(len(g.policies.of)))
	select {
	case <-g.ready:
	default:
		close(g.ready)
	}
	return nil
}
