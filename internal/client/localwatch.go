package client

import (
	"context"
	"errors"
	"sync"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// largeBatch is the largest batch of events whose memory is used again.
const largeBatch = 1024

// localWatcher turns a table's events into those of one Watch.
type localWatcher struct {
	table      *store.Table
	opts       ListOptions
	namespaced bool
	begun      bool // the present state is in first, and not yet delivered
	first      []Event
	out        []Event

	mu      sync.Mutex // Next replaces the watcher when it fell behind, Stop may come at the same time
	watcher *store.Watcher
	stopped bool
}

// watchTable begins a watch of a table.
func watchTable(t *store.Table, res *api.Resource, opts ListOptions) *localWatcher {
	w := &localWatcher{table: t, opts: opts, namespaced: res.Namespaced}
	w.begin()
	return w
}

// begin starts the watch from the present state.
func (w *localWatcher) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	add := func(rev *store.Revision) bool {
		if w.opts.matches(rev.Object) {
			w.first = append(w.first, Event{Type: Added, Object: rev.Object})
		}
		return true
	}
	if w.opts.Index != "" {
		var present []*store.Revision
		w.watcher, present = w.table.WatchIndex(w.opts.Index, w.opts.Value)
		for _, rev := range present {
			add(rev)
		}
	} else {
		var snap *store.Snapshot
		w.watcher, snap = w.table.WatchNow()
		prefix := ""
		if w.opts.Namespace != "" && w.namespaced {
			prefix = w.opts.Namespace + "/"
		}
		snap.Ascend(prefix, "", add)
	}
	w.begun = true
}

// Next implements Watcher.
func (w *localWatcher) Next(ctx context.Context) (Batch, error) {
	clear(w.out) // a watcher that waits must not keep old objects alive
	if w.out = w.out[:0]; cap(w.out) > largeBatch {
		w.out = nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
		if w.begun {
			first := w.first
			w.begun, w.first = false, nil
			return Batch{Full: true, Events: first}, nil
		}
		events, err := w.watcher.Next(ctx) // only Next itself replaces it
		if errors.Is(err, store.ErrTooOld) {
			w.watcher.Stop()
			w.begin()
			continue
		}
		if errors.Is(err, store.ErrStopped) {
			return Batch{}, ErrStopped
		}
		if err != nil {
			return Batch{}, err
		}
		for _, e := range events {
			if e, ok := e.Filter(w.sees); ok {
				w.out = append(w.out, translate(e))
			}
		}
		if len(w.out) > 0 {
			return Batch{Events: w.out}, nil
		}
	}
}

// sees reports whether an object is in view; an index may hold it under another value by now.
func (w *localWatcher) sees(o store.Object) bool {
	if !w.opts.matches(o) {
		return false
	}
	return w.opts.Index == "" || w.table.Holds(w.opts.Index, w.opts.Value, o)
}

func translate(e store.Event) Event {
	out := Event{Object: e.Revision.Object}
	switch e.Type {
	case store.Added:
		out.Type = Added
		return out
	case store.Deleted:
		out.Type = Deleted
	default:
		out.Type = Modified
	}
	if e.Old != nil {
		out.Old = e.Old.Object
	}
	return out
}

// Stop implements Watcher.
func (w *localWatcher) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.watcher.Stop()
}
