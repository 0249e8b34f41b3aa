package client

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/knarr-io/knarr/internal/api"
)

// Batch is what happened to the watched objects since the batch before it.
type Batch struct {
	// Full reports whether Events are the whole present state, each object Added: what is not among them is gone. The first
	// batch of a watch is full, and so is the one after the watch fell behind or lost its connection.
	Full   bool
	Events []Event
}

// How long Follow waits before it begins a watch again: the pause doubles until a watch has begun.
const (
	followPauseFirst = 100 * time.Millisecond
	followPauseMax   = 5 * time.Second
)

// Follow hands what opts choose of res to take, and then each change, until ctx ends. It blocks, calls take from its own goroutine
// only, and leaves nothing behind. A watch that cannot begin or that ends is logged and begun again with back-off. The events
// are take's until it returns.
func Follow(ctx context.Context, log *slog.Logger, c Client, res *api.Resource, opts ListOptions, take func(Batch)) {
	pause := followPauseFirst
	for ctx.Err() == nil {
		err := FollowOnce(ctx, c, res, opts, func(b Batch) {
			pause = followPauseFirst
			take(b)
		})
		if ctx.Err() != nil {
			return
		}
		log.Warn("watch was lost, beginning again", "resource", res.Plural, "namespace", opts.Namespace, "name", opts.Name, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, followPauseMax)
	}
}

// FollowOnce is Follow for those who cannot go on without the watch: it returns why the watch could not begin or ended, and nil
// when ctx did.
func FollowOnce(ctx context.Context, c Client, res *api.Resource, opts ListOptions, take func(Batch)) error {
	w, err := c.Watch(ctx, res, opts)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watching %s: %w", res.Plural, err)
	}
	defer w.Stop()
	for {
		b, err := w.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watching %s: %w", res.Plural, err)
		}
		take(b)
	}
}

// Await blocks until done reports true for the object of type T named key, and returns that object. done is asked about the present
// state and after each change, with nil while there is no such object; its error ends the wait.
func Await[T api.Object](ctx context.Context, c Client, key api.Key, done func(obj T) (bool, error)) (T, error) {
	var obj, none T
	res := ResourceOf[T]()
	w, err := c.Watch(ctx, res, ListOptions{Namespace: key.Namespace, Name: key.Name})
	if err != nil {
		return none, fmt.Errorf("watching %s %s: %w", res.Plural, key, err)
	}
	defer w.Stop()
	for {
		b, err := w.Next(ctx)
		if err != nil {
			return none, fmt.Errorf("watching %s %s: %w", res.Plural, key, err)
		}
		if b.Full && len(b.Events) == 0 {
			obj = none
			if ok, err := done(none); ok || err != nil {
				return none, err
			}
		}
		for _, e := range b.Events {
			obj = none
			if e.Type != Deleted {
				obj = e.Object.(T)
			}
			if ok, err := done(obj); ok || err != nil {
				return obj, err
			}
		}
	}
}

// Keys returns the keys to which key maps the objects of the batch, each as it is and as it was before, in order and without runs of
// the same key. What key reports false for is left out.
func (b Batch) Keys(key func(api.Object) (api.Key, bool)) []api.Key {
	var keys []api.Key
	add := func(o api.Object) {
		if o == nil {
			return
		}
		if k, ok := key(o); ok && (len(keys) == 0 || keys[len(keys)-1] != k) {
			keys = append(keys, k)
		}
	}
	for _, e := range b.Events {
		add(e.Object)
		add(e.Old)
	}
	return keys
}
