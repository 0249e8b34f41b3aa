package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// Back-off of a key whose Reconcile fails: as kube-controller-manager's rate limiter.
const (
	backOffFirst = 5 * time.Millisecond
	backOffMax   = 1000 * time.Second
)

// Runner runs controllers on one client.
type Runner struct {
	Client  client.Client
	Log     *slog.Logger
	Metrics *Metrics // of the queues; nil where nobody asks for them
}

// Run runs the controllers until ctx ends or one of them can no longer watch, and returns when all their goroutines have.
func (r *Runner) Run(ctx context.Context, controllers ...Controller) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, c := range controllers {
		wg.Go(func() {
			if err := r.run(ctx, c); err != nil {
				cancel(fmt.Errorf("controller %s: %w", c.Name, err))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// run is one controller: a watch pump for each watched resource and its workers, around one queue.
func (r *Runner) run(ctx context.Context, c Controller) error {
	metrics := r.Metrics
	if metrics == nil {
		metrics = NewMetrics()
	}
	queue, retries := metrics.queue(c.Name)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer queue.ShutDown()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(c.Watches))
	for _, w := range c.Watches {
		wg.Go(func() {
			if w.Every != nil {
				failed <- r.every(ctx, w, queue)
				return
			}
			failed <- client.FollowOnce(ctx, r.Client, w.Resource, client.ListOptions{}, func(b client.Batch) { enqueue(w, b, queue) })
		})
	}
	if c.Follow != nil {
		wg.Go(func() { c.Follow(ctx, queue.Add) })
	}
	for range max(1, c.Workers) {
		wg.Go(func() { r.work(ctx, c, queue, retries) })
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// enqueue adds the keys to which w maps the events of a batch.
func enqueue(w Watch, b client.Batch, queue workqueue.TypedRateLimitingInterface[api.Key]) {
	for _, e := range b.Events {
		if w.Keys == nil {
			queue.Add(api.KeyOf(e.Object))
			continue
		}
		for _, k := range w.Keys(e) {
			queue.Add(k)
		}
	}
}

// work reconciles keys until the queue is shut down.
func (r *Runner) work(ctx context.Context, c Controller, queue workqueue.TypedRateLimitingInterface[api.Key], retries prometheus.Counter) {
	for {
		key, quit := queue.Get()
		if quit {
			return
		}
		if ctx.Err() == nil {
			r.reconcile(ctx, c, key, queue, retries)
		}
		queue.Done(key)
	}
}

func (r *Runner) reconcile(ctx context.Context, c Controller, key api.Key, queue workqueue.TypedRateLimitingInterface[api.Key], retries prometheus.Counter) {
	after, err := safely(ctx, c.Reconciler, key)
	var terminal *terminalError
	switch {
	case err == nil:
		queue.Forget(key)
		if after > 0 {
			retries.Inc()
			queue.AddAfter(key, after)
		}
	case errors.As(err, &terminal):
		queue.Forget(key)
		r.Log.Error("reconciling failed for good", "controller", c.Name, "key", key.String(), "err", err)
	case ctx.Err() != nil:
	default:
		// A conflict means that somebody else wrote meanwhile; the next try reads what they wrote.
		if !apierrors.IsConflict(err) && queue.NumRequeues(key) > 2 {
			r.Log.Warn("reconciling failed, trying again", "controller", c.Name, "key", key.String(), "err", err)
		}
		retries.Inc()
		queue.AddRateLimited(key)
	}
}

// safely turns a panic of a reconciler into an error, so that one bad object does not stop the others.
func safely(ctx context.Context, rec Reconciler, key api.Key) (after time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return rec.Reconcile(ctx, key)
}

type terminalError struct{ err error }

func (e *terminalError) Error() string { return e.err.Error() }
func (e *terminalError) Unwrap() error { return e.err }

// Terminal marks an error that trying again cannot mend; the key is looked at again only when something changes.
func Terminal(err error) error { return &terminalError{err} }
