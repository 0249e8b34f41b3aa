package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

// ErrDropped is what watchers and writers of a table get once it has been dropped.
var ErrDropped = errors.New("the table has been dropped")

// opening is a table between two states: what it begins with has been asked for, and what changes meanwhile is kept. The
// store's lock guards it.
type opening struct {
	table   *Table
	changes []late
	lost    bool // the backend could not be followed: what is kept has a gap
}

// late is a change that came while its table was being opened.
type late struct {
	rev    int64
	change Change
	batch  bool
}

// Open makes a table for spec while the store runs, and returns it once it holds what the backend has below its prefix and follows it. It
// waits until the store is ready. Opening a prefix that has a table is an error.
//
// The content comes from the backend at one revision, R; the applier keeps what it sees below the prefix meanwhile. Once it is
// past R, what it kept from after R on top of what was loaded is the table as of the applier's revision: nothing is missed and
// nothing comes twice, however the two raced. Where the applier itself had to load anew, its changes have a gap, and Open begins again.
//
// Watches can resume from R+1 on, not from R: who saw a part of R's batch, through another server or before the table was dropped, would miss
// the rest of it. A mark, written after loading, sees to it that nobody is given R by this table: the copy is past it.
func (s *Store) Open(ctx context.Context, spec Spec) (*Table, error) { return s.open(ctx, spec, false) }

// Reopen is Open for a prefix that has a table whose objects are to be read in another way: the new one takes its place in one step, and the old
// one is dropped.
func (s *Store) Reopen(ctx context.Context, spec Spec) (*Table, error) {
	return s.open(ctx, spec, true)
}

func (s *Store) open(ctx context.Context, spec Spec, again bool) (*Table, error) {
	select {
	case <-s.ready:
	case <-s.ended:
		return nil, ErrEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		o, err := s.beginOpening(spec, again)
		if err != nil {
			return nil, err
		}
		done, err := s.fill(ctx, o)
		if err != nil {
			s.mu.Lock()
			delete(s.openings, spec.Prefix)
			s.mu.Unlock()
			return nil, fmt.Errorf("opening the table of %s: %w", spec.Prefix, err)
		}
		if done {
			return o.table, nil
		}
	}
}

func (s *Store) beginOpening(spec Spec, again bool) (*opening, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Table(spec.Prefix) != nil && !again || s.openings[spec.Prefix] != nil {
		return nil, fmt.Errorf("there is a table for %s already", spec.Prefix)
	}
	o := &opening{table: newTable(s, spec)}
	s.openings[spec.Prefix] = o
	return o, nil
}

// fill loads an opening's content and makes it a table. It reports false where it has to be tried again.
func (s *Store) fill(ctx context.Context, o *opening) (bool, error) {
	t := o.table
	var found []loaded
	rev, err := s.backend.Load(ctx, t.spec.Prefix, func(kv KV) error {
		if obj := s.object(t, Change{Key: kv.Key, Value: kv.Value}, kv.Rev); obj != nil {
			found = append(found, loaded{t, kv.Key[len(t.spec.Prefix):], kv.Rev, obj})
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	mark, err := s.backend.Commit(ctx, []Op{{Key: markKey, Value: []byte{}, If: Any}})
	if err != nil {
		return false, err
	}
	if err := s.WaitFor(ctx, mark); err != nil {
		return false, err
	}
	s.loading.Lock() // a load of everything must know this table, or that it is not one yet
	defer s.loading.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.lost {
		delete(s.openings, t.spec.Prefix)
		return false, nil
	}
	for _, l := range found {
		t.apply(l.key, l.object, l.rev, true)
	}
	t.cutHistory(rev + 1)
	t.changed = rev // at the latest
	for _, l := range o.changes {
		if l.rev > rev {
			obj, _ := s.decode(t, l.change, l.rev)
			t.apply(l.change.Key[len(t.spec.Prefix):], obj, l.rev, l.batch)
		}
	}
	delete(s.openings, t.spec.Prefix)
	tables := maps.Clone(*s.tables.Load())
	old := tables[t.spec.Prefix]
	tables[t.spec.Prefix] = t
	s.tables.Store(&tables)
	if old != nil {
		old.drop()
	}
	return true, nil
}

// keep notes a change of a table that is being opened. The store's lock is held.
func (s *Store) keep(rev int64, c Change, batch bool) {
	if len(s.openings) == 0 {
		return
	}
	prefix, _ := split(c.Key, func(prefix string) bool { return s.openings[prefix] != nil })
	if o := s.openings[prefix]; o != nil {
		o.changes = append(o.changes, late{rev, c, batch})
	}
}

// Drop forgets a table: its watchers get ErrDropped, as does whoever writes to it from now on, and its memory is freed once nobody holds it.
// Who does reads what it held at last. What the backend has below its prefix stays. Dropping a prefix without a table does nothing.
func (s *Store) Drop(prefix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.Table(prefix)
	if t == nil {
		return
	}
	tables := maps.Clone(*s.tables.Load())
	delete(tables, prefix)
	s.tables.Store(&tables)
	t.drop()
}

// Dropped returns a table for spec that has been dropped already: it has no objects, and takes none.
func (s *Store) Dropped(spec Spec) *Table {
	t := newTable(s, spec)
	t.dropped.Store(true)
	return t
}

// drop ends the table's watches and refuses writes from now on. The store's lock is held.
func (t *Table) drop() {
	t.dropped.Store(true)
	for w := range t.watchers {
		w.end()
	}
	for _, values := range t.byIndex {
		for _, watchers := range values {
			for w := range watchers {
				w.end()
			}
		}
	}
}
