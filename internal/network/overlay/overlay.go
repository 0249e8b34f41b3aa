// Package overlay leads packets to the pods of other machines: over VXLAN, or by plain routes where the machines share a link.
//
// What flows through it: Nodes come from the API; [MakePlan], a pure function, turns them and the link that has this machine's
// address into what the kernel shall have; [Difference] compares that with what the kernel has, and the steps between are taken over
// netlink. What must stay true: before all Nodes are known nothing is taken away, and what is right is not touched, so that a
// restart is not noticed; nothing is made while there is no other machine; only the instance's own link and routes are
// changed; nothing runs when nothing changes. docs/adr/0006 says why. Tests: TestAnyStateLeadsToThePlan,
// TestOnlyWhatDiffersIsTouched, TestPurgeLeavesRoutesOfOthers, TestLinkOfSomebodyElse.
package overlay

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/client"
)

// DefaultVNI and DefaultPort are the ones Linux and others use; all machines of a cluster must have the same.
const (
	DefaultVNI  = 1
	DefaultPort = 8472
)

// window is the shortest time between two looks at the kernel.
const window = 50 * time.Millisecond

// Times after which failed steps are tried again; changes of links, addresses and routes lead to a try at once.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Config is what an Overlay needs.
type Config struct {
	Instance string
	Self     Self // VNI and Port may be 0
	// Protocol and Priority mark the instance's routes.
	Protocol, Priority int
	// SetSysctl sets a key under /proc/sys that belongs to the machine, and remembers what it was.
	SetSysctl func(key, value string) error
	Client    client.Client
	Log       *slog.Logger
}

// Overlay keeps the ways to other machines. Make one with New and call Run once.
type Overlay struct {
	cfg     Config
	kernel  *kernel
	podMTU  atomic.Int64
	peers   chan []Peer
	changed chan struct{} // links, addresses or routes that matter
	ready   chan struct{}
	// underlay and link are the indexes of the links whose changes matter.
	underlay, link atomic.Int64

	// The loop's own.
	current []Peer
	refused map[string]bool // as logged
	failure string
	retry   time.Duration
}

// New reads the MTU that pods get at first: as an earlier run's link has it, else that of the underlay, less the overhead if
// everything goes through VXLAN.
func New(cfg Config) (*Overlay, error) {
	if cfg.Self.VNI == 0 {
		cfg.Self.VNI = DefaultVNI
	}
	if cfg.Self.Port == 0 {
		cfg.Self.Port = DefaultPort
	}
	if cfg.Self.Mode == "" {
		cfg.Self.Mode = Auto
	}
	o := &Overlay{cfg: cfg, peers: make(chan []Peer), changed: make(chan struct{}, 1), ready: make(chan struct{}), retry: firstRetry,
		kernel: newKernel(cfg.Instance, cfg.Self.family(), cfg.Protocol, cfg.Priority)}
	under, err := FindUnderlay(cfg.Self.IP)
	if err != nil {
		return nil, err
	}
	mtu := MakePlan(cfg.Self, under, nil).PodMTU
	if link, err := o.kernel.link(); err == nil && link != nil && cfg.Self.Mode != None {
		mtu = min(mtu, link.Attrs().MTU)
	}
	o.podMTU.Store(int64(mtu))
	return o, nil
}

// PodMTU returns the MTU that pod links need now, in bytes.
func (o *Overlay) PodMTU() int { return int(o.podMTU.Load()) }

// Ready is closed once the pods of all machines known at the start can be reached.
func (o *Overlay) Ready() <-chan struct{} { return o.ready }

// Run keeps the kernel in step with the Nodes until ctx ends. What it made stays; see [Purge].
func (o *Overlay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { o.watchNodes(ctx) })
	wg.Go(func() { o.again(ctx, "watching links and routes", o.watchKernel) })
	o.loop(ctx)
	return nil
}

// again runs f until ctx ends.
func (o *Overlay) again(ctx context.Context, what string, f func(context.Context) error) {
	for {
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		o.cfg.Log.Warn(what+" failed, beginning again", "err", err)
		select {
		case <-time.After(firstRetry):
		case <-ctx.Done():
			return
		}
	}
}

// loop looks at the kernel when something changed: at once, then at most every window.
func (o *Overlay) loop(ctx context.Context) {
	var timer <-chan time.Time
	var next time.Time
	known := false
	for {
		select {
		case <-ctx.Done():
			return
		case o.current = <-o.peers:
			known = true
		case <-o.changed:
		case <-timer:
			timer = nil
		}
		if !known {
			continue
		}
		if wait := time.Until(next); wait > 0 {
			if timer == nil || o.failure != "" {
				timer = time.After(wait)
			}
			continue
		}
		next = time.Now().Add(window)
		if timer = nil; !o.step() {
			timer = time.After(o.retry)
			o.retry = min(2*o.retry, lastRetry)
		}
	}
}

// step brings the kernel in step with the current peers, and reports whether that worked.
func (o *Overlay) step() bool {
	under, err := FindUnderlay(o.cfg.Self.IP)
	if err != nil {
		return o.failed(err)
	}
	plan := MakePlan(o.cfg.Self, under, o.current)
	refused := map[string]bool{}
	for _, why := range plan.Refused {
		if refused[why] = true; !o.refused[why] {
			o.cfg.Log.Warn("pods of a node cannot be reached", "reason", why)
		}
	}
	o.refused = refused
	o.podMTU.Store(int64(plan.PodMTU)) // before the link has it: no pod is made with more than that takes
	have, err := o.kernel.observe(under)
	if err != nil {
		return o.failed(err)
	}
	changes := Difference(plan, have)
	if len(plan.Routes) > 0 && o.kernel.af == unix.AF_INET {
		// Answers to node ports used through 127.0.0.1 come back by the underlay to a loopback address. The Services' table drops
		// what others send to such addresses.
		if err := o.cfg.SetSysctl("net/ipv4/conf/"+under.Name+"/route_localnet", "1"); err != nil {
			return o.failed(err)
		}
	}
	if !changes.Empty() {
		if err := o.kernel.apply(under, changes); err != nil {
			return o.failed(err)
		}
		o.cfg.Log.Info("routes to other nodes changed", "tunnels", len(plan.Tunnels),
			"routes", len(plan.Routes), "set", len(changes.SetRoutes), "deleted", len(changes.DeleteRoutes), "podMTU", plan.PodMTU)
	}
	o.underlay.Store(int64(under.Index))
	o.link.Store(int64(o.kernel.index))
	o.failure, o.retry = "", firstRetry
	select {
	case <-o.ready:
	default:
		close(o.ready)
	}
	return true
}

// failed logs err unless it is the one from before.
func (o *Overlay) failed(err error) bool {
	if o.failure != err.Error() {
		o.failure = err.Error()
		o.cfg.Log.Error("routes to other nodes cannot be written, trying again", "err", err)
	}
	return false
}
