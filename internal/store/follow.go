package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// markKey is written after each load, so that the copy gets past the load's revision: that may be in the midst of what somebody has seen of a
// batch, and nobody is to resume from it as if they had seen all.
const markKey = root + "knarr/loaded"

// retryAfter is the pause after the backend could not be followed.
const retryAfter = 200 * time.Millisecond

// loaded is one object that load found.
type loaded struct {
	table  *Table
	key    string
	rev    int64
	object Object
}

// load brings the tables to what the backend holds at one revision, R, and tells the watchers the difference in the order of revisions,
// deletions last. What happened in between can no longer be told: watches resume from R+1 on, and not from R, since another server may have
// written a batch then of which their clients have seen a part. settled is the revision of the mark: once the copy has reached it, nobody is
// given R any more.
func (s *Store) load(ctx context.Context) (rev, settled int64, err error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	present := map[*Table]map[string]bool{}
	for _, t := range *s.tables.Load() {
		present[t] = map[string]bool{}
	}
	var news []loaded
	rev, err = s.backend.Load(ctx, root, func(kv KV) error {
		t, key := s.find(kv.Key)
		if t == nil {
			return nil
		}
		if old, ok := t.Get(key); !ok || old.Rev != kv.Rev {
			obj := s.object(t, Change{Key: kv.Key, Value: kv.Value}, kv.Rev)
			if obj == nil {
				return nil
			}
			if n := len(news); n > 0 && news[n-1].table == t {
				t.shareWith(obj, news[n-1].object) // they come in the order of their keys: neighbours are alike
			}
			news = append(news, loaded{t, key, kv.Rev, obj})
		}
		present[t][key] = true
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	settled, floor := s.mark(ctx, rev)
	slices.SortStableFunc(news, func(a, b loaded) int { return cmp.Compare(a.rev, b.rev) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range present {
		t.cutHistory(floor)
		t.reloading = true
	}
	for _, o := range s.openings {
		o.lost = true
	}
	for _, n := range news {
		if old, ok := n.table.get(n.key); ok && old.Object.GetUID() != n.object.GetUID() {
			n.table.apply(n.key, nil, n.rev, true) // deleted and made anew in between
		}
		n.table.apply(n.key, n.object, n.rev, true)
	}
	for t, keys := range present {
		for _, r := range t.snapshotLocked().all() {
			if !keys[r.Key] {
				t.apply(r.Key, nil, rev, true)
			}
		}
		t.changed, t.reloading = rev, false // at the latest
	}
	s.reached(rev)
	return rev, settled, nil
}

// mark writes the mark after a load at revision rev, and returns its revision and the first one from which watches may resume. As long as the
// store takes no writes the copy stays at rev: then they may resume from there, for clients would have no way to begin anew.
func (s *Store) mark(ctx context.Context, rev int64) (settled, floor int64) {
	settled, err := s.backend.Commit(ctx, []Op{{Key: markKey, Value: []byte{}, If: Any}})
	if err != nil {
		s.log.Warn("the store cannot be written to", "err", err)
		return rev, rev
	}
	return settled, rev + 1
}

// follow applies the backend's changes after revision from, loading anew where the backend no longer has them, until ctx ends.
func (s *Store) follow(ctx context.Context, from int64) {
	for {
		err := s.backend.Watch(ctx, root, from, func(rev int64, changes []Change) {
			s.applyAll(rev, changes)
			from = rev
		})
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("following the store failed, trying again", "err", err, "revision", from)
		if errors.Is(err, ErrTooOld) {
			rev, _, err := s.load(ctx)
			if err == nil {
				from = rev
				continue
			}
			if ctx.Err() == nil {
				s.log.Error("loading the store anew failed, trying again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryAfter):
		}
	}
}

// freeze is the old states of a table that are kept in stored form from now on.
type freeze struct {
	table  *Table
	states []frozen
	upTo   int
}

// applyAll puts the changes of one revision into their tables.
func (s *Store) applyAll(rev int64, changes []Change) {
	// What takes time is done before anybody has to wait for the lock.
	objects, tables := make([]Object, len(changes)), make([]*Table, len(changes))
	var freezes []freeze
	for i, c := range changes {
		t, _ := s.find(c.Key)
		if t == nil {
			continue
		}
		objects[i], tables[i] = s.object(t, c, rev), t
		if !t.spec.Compact && !slices.ContainsFunc(freezes, func(f freeze) bool { return f.table == t }) {
			states, upTo := t.history.freeze(t.spec.Encode)
			freezes = append(freezes, freeze{t, states, upTo})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range freezes {
		f.table.history.settle(f.states, f.upTo)
	}
	for i, c := range changes {
		s.keep(rev, c, len(changes) > 1)
		switch t, key := s.find(c.Key); {
		case t == nil:
		case t != tables[i]: // opened a moment ago
			obj, _ := s.decode(t, c, rev)
			t.apply(key, obj, rev, len(changes) > 1)
		default:
			t.apply(key, objects[i], rev, len(changes) > 1)
		}
	}
	s.reached(rev)
}

// object returns what a change put, at revision rev, sharing what it can with its neighbours; nil, which shows as a deletion, if it cannot be
// read. The store's lock is free.
func (s *Store) object(t *Table, c Change, rev int64) Object {
	obj, fresh := s.decode(t, c, rev)
	if fresh {
		t.share(c.Key[len(t.spec.Prefix):], obj)
	}
	return obj
}

// decode is object without the sharing, for those who hold the store's lock. It reports whether the object is new, rather than one that its
// writer had.
func (s *Store) decode(t *Table, c Change, rev int64) (_ Object, fresh bool) {
	if c.Value == nil {
		return nil, false
	}
	if obj := s.takePending(c.Key, c.Value, rev); obj != nil {
		return obj, false
	}
	obj, err := t.spec.Decode(c.Value)
	if err != nil {
		s.log.Error("an object in the store cannot be read and is not shown", "key", c.Key, "revision", rev, "err", err)
		return nil, false
	}
	obj.SetResourceVersion(FormatRevision(rev))
	return obj, true
}
