package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Config says who does what.
type Config struct {
	Servers   []Server
	Namespace string // exists, and nobody else has ConfigMaps with a key "value" there
	Writers   int
	Readers   int
	Followers int
	Seed      uint64        // of what the clients choose to do
	Pause     time.Duration // of each client between two requests
	// RequestTimeout is how long clients wait for an answer (default 2 s), Silence how long followers wait for an event before they
	// try another server (default 3 s), WatchLife how long a watch lasts at most (default 10 s).
	RequestTimeout, Silence, WatchLife time.Duration
	// Settle is how long the cluster may take, once the clients have stopped, to show everybody everything (default 1 min).
	Settle time.Duration
}

// Load is the clients.
type Load struct {
	Recorder *Recorder

	cfg     Config
	servers atomic.Pointer[[]Server]
	until   atomic.Int64 // the revision at which followers stop; 0 while it is not known
	shared  *sharedKeys
}

// NewLoad returns the clients; Run starts them.
func NewLoad(cfg Config) *Load {
	for d, def := range map[*time.Duration]time.Duration{&cfg.RequestTimeout: 2 * time.Second, &cfg.Silence: 3 * time.Second, &cfg.WatchLife: 10 * time.Second, &cfg.Settle: time.Minute} {
		if *d == 0 {
			*d = def
		}
	}
	l := &Load{Recorder: NewRecorder(), cfg: cfg, shared: newSharedKeys()}
	l.Use(cfg.Servers...)
	return l
}

// Use lets the clients use these servers from now on.
func (l *Load) Use(servers ...Server) { l.servers.Store(&servers) }

// Run lets the clients work until ctx ends. Then it lets them come to an end, waits until the followers have seen everything, and reads
// the final state at every server.
func (l *Load) Run(ctx context.Context) error {
	// Requests under way when ctx ends are still answered: giving them up would only make outcomes unknown.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var clients, followers sync.WaitGroup
	for i := range l.cfg.Writers {
		clients.Go(func() { l.newClient("writer", i).write(ctx, working) })
	}
	for i := range l.cfg.Readers {
		clients.Go(func() { l.newClient("reader", i).read(ctx, working) })
	}
	for i := range l.cfg.Followers {
		f := &follower{client: l.newClient("follower", i)}
		followers.Go(func() { f.follow(working) })
	}
	<-ctx.Done()
	clients.Wait()
	settling, cancel := context.WithTimeout(working, l.cfg.Settle)
	defer cancel()
	err := l.barrier(settling)
	seen := make(chan struct{})
	go func() { followers.Wait(); close(seen) }()
	if err == nil {
		select {
		case <-seen:
		case <-settling.Done():
			err = fmt.Errorf("the followers did not reach revision %d within %v", l.until.Load(), l.cfg.Settle)
		}
	}
	stop()
	<-seen
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.Settle)
	defer cancel()
	return errors.Join(err, l.final(ending))
}

// barrier writes one more object: whoever has seen it has seen everything. Another one wakes those who saw the first before they
// could know what it means.
func (l *Load) barrier(ctx context.Context) error {
	c := l.newClient("barrier", 0)
	for written := 0; written < 2; {
		o := c.do(ctx, Op{Kind: Create, Key: c.newValue(), Value: c.newValue()})
		if o.Outcome == Done {
			written++
			l.until.CompareAndSwap(0, o.Found.Rev)
		} else if ctx.Err() != nil {
			return fmt.Errorf("no write succeeded once the load had stopped; the last one: %s", o)
		}
	}
	return nil
}

// final reads everything once more, at every server.
func (l *Load) final(ctx context.Context) error {
	var errs []error
	for i, s := range *l.servers.Load() {
		c := l.newClient("final", i)
		for {
			c.at = i
			o := c.do(ctx, Op{Kind: List})
			if o.Outcome == Done {
				break
			}
			if ctx.Err() != nil {
				errs = append(errs, fmt.Errorf("%s does not tell the final state: %s", s.Name, o))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// Ask lists at one server, whether or not the clients use it, and returns what came of it. That is part of the history.
func (l *Load) Ask(ctx context.Context, s Server) *Op {
	return l.newClient("asker", 0).doAt(ctx, s, Op{Kind: List})
}

// client is one client. It belongs to one goroutine.
type client struct {
	load   *Load
	name   string
	rand   *rand.Rand
	at     int // the server in use
	values int
	failed int // requests without an answer in a row
}

func (l *Load) newClient(role string, n int) *client {
	return &client{load: l, name: fmt.Sprintf("%s-%d", role, n), at: n, rand: rand.New(rand.NewPCG(l.cfg.Seed, uint64(n)<<8|uint64(role[0])))}
}

// newValue returns a value that nobody else writes.
func (c *client) newValue() string {
	c.values++
	return fmt.Sprintf("%s-%d", c.name, c.values)
}

// server is the one in use, of those that there are.
func (c *client) server() Server {
	all := *c.load.servers.Load()
	return all[c.at%len(all)]
}

// do carries out one operation. Where that fails the client goes to another server.
func (c *client) do(ctx context.Context, o Op) *Op {
	done := c.doAt(ctx, c.server(), o)
	c.moveOn(ctx, done.Outcome == NotSent || done.Outcome == Unknown)
	return done
}

// doAt carries out one operation at a server and records it.
func (c *client) doAt(ctx context.Context, s Server, o Op) *Op {
	o.Client, o.Server, o.Call = c.name, s.Name, c.load.Recorder.Now()
	within, cancel := context.WithTimeout(ctx, c.load.cfg.RequestTimeout)
	s.do(within, c.load.cfg.Namespace, &o)
	cancel()
	c.load.Recorder.add(&o)
	return &o
}

// moveOn goes to another server after a failure, slowly once all of them failed.
func (c *client) moveOn(ctx context.Context, failed bool) {
	if !failed {
		c.failed = 0
		return
	}
	c.at++
	if c.failed++; c.failed%len(*c.load.servers.Load()) == 0 {
		sleep(ctx, 20*time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
