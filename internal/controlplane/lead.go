package controlplane

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/scheduler"
	"github.com/knarr-io/knarr/internal/store"
)

// fenceRetry is the pause before the fence is tried to be taken again.
const fenceRetry = 200 * time.Millisecond

// lead runs the controllers and the scheduler while this server leads, which ctx tells.
func (p *Plane) lead(ctx context.Context) error {
	for ctx.Err() == nil {
		fence, err := p.Store.TakeFence(ctx, store.LeaderKey, []byte(p.cfg.Name))
		if err == nil {
			if err := p.act(ctx, fence); err != nil {
				return err
			}
			continue
		}
		if ctx.Err() == nil {
			p.cfg.Log.Warn("the controllers do not run yet, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(fenceRetry):
		}
	}
	return nil
}

// act runs the controllers and the scheduler until ctx ends or the fence is lost, and returns when all of them have ended.
func (p *Plane) act(ctx context.Context, fence *store.Fence) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := p.Client.Fenced(fence)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-fence.Lost():
			p.cfg.Log.Warn("another server has taken over as leader")
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	g.Go(func() error {
		return scheduler.New(scheduler.Config{Client: c.As(kubeScheduler), Logger: p.cfg.Log, Metrics: p.scheduling}).Run(ctx)
	})
	g.Go(func() error {
		return (&controller.Runner{Client: c, Log: p.cfg.Log, Metrics: p.queues}).Run(ctx, p.controllers(c)...)
	})
	return g.Wait()
}
