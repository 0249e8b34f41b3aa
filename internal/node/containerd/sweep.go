package containerd

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
)

// sweepDelay is how long after the last removal containerd is made to collect once more: longer than the schedule_delay of its
// configuration and than a collection takes, so that on most days there is nothing left to do.
const sweepDelay = 15 * time.Second

// sweeping returns a plugin that makes containerd's collector run once more when removals have come to rest. containerd 2.4 forgets a removal
// that comes while it deletes files (its scheduler drops events that are older than the end of the last collection) until something else
// is removed: on a quiet node the files of a removed container would stay for good.
func sweeping() *plugin.Registration {
	return &plugin.Registration{
		Type:     "io.knarr.sweep.v1",
		ID:       "sweep",
		Requires: []plugin.Type{plugins.MetadataPlugin, plugins.GCPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			m, err := ic.GetSingle(plugins.MetadataPlugin)
			if err != nil {
				return nil, err
			}
			g, err := ic.GetSingle(plugins.GCPlugin)
			if err != nil {
				return nil, err
			}
			collector, ok := g.(collector)
			if !ok {
				return nil, errors.New("containerd's collector cannot be called")
			}
			s := newSweeper(ic.Context, collector, sweepDelay)
			m.(*metadata.DB).RegisterMutationCallback(s.mutated)
			return s, nil
		},
	}
}

// collector is what containerd's gc plugin offers to other plugins.
type collector interface {
	ScheduleAndWait(context.Context) (gc.Stats, error)
}

// sweeper calls a collector when nothing has been removed for a while.
type sweeper struct {
	delay  time.Duration
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	timer *time.Timer
}

// newSweeper starts a sweeper, which ends with ctx or with Close.
func newSweeper(ctx context.Context, c collector, delay time.Duration) *sweeper {
	ctx, cancel := context.WithCancel(ctx)
	s := &sweeper{delay: delay, cancel: cancel, done: make(chan struct{}), timer: time.NewTimer(delay)}
	go func() {
		defer close(s.done)
		defer s.timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.timer.C:
				if _, err := c.ScheduleAndWait(ctx); err != nil && ctx.Err() == nil {
					log.G(ctx).WithError(err).Warn("collecting what removed containers left")
				}
			}
		}
	}()
	return s
}

// mutated is told of each change of containerd's database, and whether something was removed from it since the last collection.
func (s *sweeper) mutated(removed bool) {
	if removed {
		s.mu.Lock()
		s.timer.Reset(s.delay)
		s.mu.Unlock()
	}
}

// Close ends the sweeper; containerd calls it when it stops.
func (s *sweeper) Close() error {
	s.cancel()
	<-s.done
	return nil
}
