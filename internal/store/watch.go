package store

import (
	"context"
	"errors"
	"sync"
)

// EventType says what an Event tells.
type EventType int

// Event types.
const (
	Added EventType = iota
	Modified
	Deleted
)

// Event is one change of one object.
type Event struct {
	Type     EventType
	Revision *Revision // the new state; for Deleted the last one, at the revision of the deletion
	Old      *Revision // the state before, nil for Added

	// Reloaded says that the event is a difference that was found when everything was loaded anew: what happened in between, and how often, is not
	// known. Who needs states only goes on; who promises to tell each change cannot.
	Reloaded bool

	// batch says that other objects changed at the same revision. A watch that resumes from that revision gets all of it
	// again: a client cannot tell how far into the batch it had come.
	batch bool
}

// after tells whether the event is to be told to a watch that resumes from revision from.
func (e *Event) after(from int64) bool {
	return e.Revision.Rev > from || e.Revision.Rev == from && e.batch
}

// Filter tells how e looks to someone who sees only the objects that match: entering the view is an addition, leaving it a
// deletion. ok is false where there is nothing to see.
func (e Event) Filter(match func(Object) bool) (_ Event, ok bool) {
	was := e.Old != nil && match(e.Old.Object)
	is := e.Type != Deleted && match(e.Revision.Object)
	switch {
	case is && !was:
		e.Type = Added
	case is && was:
		e.Type = Modified
	case was:
		if e.Type != Deleted {
			e.Revision = &Revision{Key: e.Revision.Key, Rev: e.Revision.Rev, Object: deletedAt(e.Old.Object, e.Revision.Rev)}
			e.Type = Deleted
		}
	default:
		return e, false
	}
	return e, true
}

// ErrStopped is returned by Next after Stop.
var ErrStopped = errors.New("the watch was stopped")

// watcherLimit is how many events may wait in a watcher before it is told that it fell behind.
const watcherLimit = 50_000

// watcherSpare is the largest queue that is used again.
const watcherSpare = 1024

// Watcher receives a table's events. It belongs to one goroutine; Stop may be called from any.
type Watcher struct {
	table        *Table
	index, value string
	after        int64 // the revision from which it resumed: older events are not its business

	mu      sync.Mutex
	queue   []Event
	spare   []Event // the caller's, until the next call of Next
	lost    bool
	dropped bool
	stopped bool
	wake    chan struct{}
}

// WatchFrom begins a watch of all events after revision from. ErrTooOld means that they are no longer all known.
func (t *Table) WatchFrom(from int64) (*Watcher, error) {
	t.store.mu.Lock()
	found, ok := t.history.since(from)
	if !ok {
		t.store.mu.Unlock()
		return nil, ErrTooOld
	}
	w := t.addWatcher("", "")
	w.after = from
	t.store.mu.Unlock()
	past, err := events(found, t.spec.Decode)
	if err != nil {
		w.Stop()
		return nil, ErrTooOld
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(past, w.queue...) // what happened in the meantime comes after
	if len(w.queue) > 0 {
		w.signal()
	}
	return w, nil
}

// WatchNow begins a watch of all events after the present state, which it returns with its revision.
func (t *Table) WatchNow() (*Watcher, *Snapshot) {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	return t.addWatcher("", ""), t.snapshotLocked()
}

// WatchIndex begins a watch of the objects for which index holds value, and returns those there are. Its cost does not grow with
// what happens to other values.
func (t *Table) WatchIndex(index, value string) (*Watcher, []*Revision) {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	return t.addWatcher(index, value), t.lookup(index, value)
}

func (t *Table) addWatcher(index, value string) *Watcher {
	w := &Watcher{table: t, index: index, value: value, wake: make(chan struct{}, 1), dropped: t.dropped.Load()}
	set := t.watchers
	if index != "" {
		set = t.byIndex[index][value]
		if set == nil {
			set = map[*Watcher]struct{}{}
			t.byIndex[index][value] = set
		}
	}
	set[w] = struct{}{}
	return w
}

// Stop ends the watch and frees what it holds.
func (w *Watcher) Stop() {
	t := w.table
	t.store.mu.Lock()
	if w.index == "" {
		delete(t.watchers, w)
	} else if set := t.byIndex[w.index][w.value]; set != nil {
		delete(set, w)
		if len(set) == 0 {
			delete(t.byIndex[w.index], w.value)
		}
	}
	t.store.mu.Unlock()
	w.mu.Lock()
	w.stopped, w.queue = true, nil
	w.signal()
	w.mu.Unlock()
}

// Next blocks for events. The slice is the caller's until the next call. ErrTooOld means that the watcher fell behind and must
// begin anew.
func (w *Watcher) Next(ctx context.Context) ([]Event, error) {
	if cap(w.spare) > watcherSpare {
		w.spare = nil
	}
	clear(w.spare) // a watcher that waits must not keep old objects alive
	for {
		w.mu.Lock()
		switch {
		case w.stopped:
			w.mu.Unlock()
			return nil, ErrStopped
		case w.lost:
			w.mu.Unlock()
			return nil, ErrTooOld
		case w.dropped && len(w.queue) == 0:
			w.mu.Unlock()
			return nil, ErrDropped
		case len(w.queue) > 0:
			out := w.queue
			w.queue, w.spare = w.spare[:0], out
			w.mu.Unlock()
			return out, nil
		}
		w.mu.Unlock()
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Progress returns the newest revision up to which the watcher has been given everything, or false while events wait.
func (w *Watcher) Progress() (int64, bool) {
	w.table.store.mu.RLock()
	defer w.table.store.mu.RUnlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.table.store.rev, len(w.queue) == 0 && !w.lost && w.table.store.rev >= w.after
}

// end tells the watcher that its table is no longer there: it is given what waits, and then ErrDropped.
func (w *Watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped = true
	w.signal()
}

func (w *Watcher) push(e Event) {
	if !e.after(w.after) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost || w.stopped {
		return
	}
	if len(w.queue) >= watcherLimit {
		w.lost, w.queue = true, nil
	} else {
		w.queue = append(w.queue, e)
	}
	w.signal()
}

func (w *Watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
