// Package task holds the goroutines of one agent together: they begin with its Run and have ended when Run returns.
//
// What flows through it: the rooms of the agent start work with [Group.Go]; the agent opens the group with its context and closes
// it. What must stay true: nothing is started after the end (TestNothingStartsAfterTheEnd), and every goroutine of the agent but
// Run's own is one of the group's.
package task

import (
	"context"
	"sync"
	"time"
)

// Group is the goroutines of an agent. The zero Group is not open yet: it starts nothing.
type Group struct {
	mu      sync.Mutex
	ctx     context.Context // Open's; nil before
	closing bool
	running sync.WaitGroup
}

// Open lets the group start goroutines, under ctx.
func (g *Group) Open(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ctx = ctx
}

// Close lets no more goroutines start, and Wait waits for those that run.
func (g *Group) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closing = true
}

// Wait returns when every goroutine has ended.
func (g *Group) Wait() { g.running.Wait() }

// Go runs f in a goroutine and reports whether it did: before the start and after the end nothing is run.
func (g *Group) Go(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing || g.ctx == nil {
		return false
	}
	g.running.Go(f)
	return true
}

// Context returns the context of the agent's life; before Open one that never ends.
func (g *Group) Context() context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx == nil {
		return context.Background()
	}
	return g.ctx
}

// Ended reports whether the agent is ending.
func (g *Group) Ended() bool { return g.Context().Err() != nil }

// How long a call that makes something in the runtime may take, and how much longer than the agent.
const steadyTimeout, steadyAfterEnd = 2 * time.Minute, 5 * time.Second

// Steady returns a context for calls that make something in the runtime: the end of the pod does not cut them off half done, where
// they might leave what nobody sees; the end of the agent does, a little later.
func (g *Group) Steady(ctx context.Context) (context.Context, context.CancelFunc) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), steadyTimeout)
	stop := context.AfterFunc(g.Context(), func() { Pause(call, steadyAfterEnd); cancel() })
	return call, func() { stop(); cancel() }
}

// Pause waits for d or until ctx is cancelled.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Retry is a delay that doubles from 100 ms to 5 s, for streams and calls that fail because the other side is away.
type Retry struct{ delay time.Duration }

// Wait waits, longer each time, or until ctx is cancelled.
func (r *Retry) Wait(ctx context.Context) {
	r.delay = min(max(2*r.delay, 100*time.Millisecond), 5*time.Second)
	Pause(ctx, r.delay)
}

// Reset makes the next delay the shortest again.
func (r *Retry) Reset() { r.delay = 0 }

// Quiet returns err, or nil where it only says that ctx has ended.
func Quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
