package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/store"
)

const otherPrefix = "/registry/example.com/widgets/"

func otherSpec() store.Spec {
	s := spec()
	s.Prefix = otherPrefix
	return s
}

func in(table *store.Table, name string, n int, cond int64) store.Mutation {
	return store.Mutation{Table: table, Key: name, Object: configMap(name, "red", n), If: cond}
}

func open(t *testing.T, s *store.Store) *store.Table {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	table, err := s.Open(ctx, otherSpec())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestOpenedTableHoldsWhatIsThereAndFollows(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		s, _ := run(t, b)
		first := open(t, s)
		rev := commit(t, s, in(first, "a", 1, 0), in(first, "b", 1, 0))
		if _, err := s.Open(t.Context(), otherSpec()); err == nil {
			t.Error("a table was opened twice")
		}

		// Another server opens it later, and a restarted one.
		other, _ := run(t, b)
		second := open(t, other)
		if r, ok := second.Get("a"); !ok || r.Rev != rev || count(r.Object) != 1 {
			t.Errorf("a in a table that was opened later: %v %v", r, ok)
		}
		if found := second.Lookup("color", "red"); len(found) != 2 {
			t.Errorf("%d objects by the index, want 2", len(found))
		}
		w, err := second.WatchFrom(second.Snapshot().Rev)
		if err != nil {
			t.Fatalf("resuming from the revision that a client listed at: %v", err)
		}
		defer w.Stop()
		at := commit(t, s, in(first, "a", 2, rev))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		events, err := w.Next(ctx)
		if err != nil || len(events) != 1 || events[0].Type != store.Modified || events[0].Revision.Rev != at {
			t.Errorf("what a watch of the later table says: %v %v", events, err)
		}
		if _, err := second.WatchFrom(rev - 1); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("a watch from before the table was opened: %v", err)
		}
	})
}

func TestDroppedTableEndsItsWatchersAndWriters(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		s, _ := run(t, b)
		table := open(t, s)
		rev := commit(t, s, in(table, "a", 1, 0))
		all, _ := table.WatchNow()
		red, _ := table.WatchIndex("color", "red")
		waiting := make(chan error, 1)
		go func() { _, err := all.Next(t.Context()); waiting <- err }()
		s.Drop(otherPrefix)
		if err := <-waiting; !errors.Is(err, store.ErrDropped) {
			t.Errorf("a watch of a table that was dropped: %v", err)
		}
		if _, err := red.Next(t.Context()); !errors.Is(err, store.ErrDropped) {
			t.Errorf("a watch by index: %v", err)
		}
		if _, err := s.Commit(t.Context(), in(table, "b", 1, 0)); !errors.Is(err, store.ErrDropped) {
			t.Errorf("a write: %v", err)
		}
		late, _ := table.WatchNow()
		if _, err := late.Next(t.Context()); !errors.Is(err, store.ErrDropped) {
			t.Errorf("a watch that began after the drop: %v", err)
		}
		if s.Table(otherPrefix) != nil {
			t.Error("the table is still there")
		}
		s.Drop(otherPrefix)
		if r, ok := open(t, s).Get("a"); !ok || r.Rev != rev {
			t.Errorf("a after the table was opened again: %v %v", r, ok)
		}
	})
}

// TestTablesComeAndGoUnderLoad: whenever a table is opened, it is what all writes up to then have made, and follows those after; a table beside
// it notices nothing. Every other time the backend has forgotten what the applier had not seen yet.
func TestTablesComeAndGoUnderLoad(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		writer, _ := run(t, b)
		table := open(t, writer)
		beside, _ := writer.Table(prefix).WatchNow()
		o := &observer{state: map[string]*store.Revision{}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		for i := range 4 {
			wg.Go(func() {
				name, rev := fmt.Sprintf("w%d", i), int64(0)
				for n := 1; ctx.Err() == nil; n++ {
					var err error
					if rev, err = writer.Commit(ctx, in(table, name, n, rev)); err != nil {
						if ctx.Err() == nil {
							t.Errorf("writing %s: %v", name, err)
						}
						return
					}
				}
			})
		}
		reader, _ := run(t, b)
		for round := range 30 {
			got := open(t, reader)
			w, snapshot := got.WatchNow()
			state := map[string]*store.Revision{}
			snapshot.Ascend("", "", func(r *store.Revision) bool { state[r.Key] = r; return true })
			// Each counts in steps of one: a number that is left out is a change that was missed.
			for seen := 0; seen < 20; {
				events, err := w.Next(t.Context())
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				for _, e := range events {
					if before := state[e.Revision.Key]; before != nil && count(e.Revision.Object) != count(before.Object)+1 {
						t.Fatalf("round %d: %s went from %d to %d", round, e.Revision.Key, count(before.Object), count(e.Revision.Object))
					}
					state[e.Revision.Key] = e.Revision
					seen++
				}
			}
			w.Stop()
			if round%2 == 0 {
				b.compact(reader.Revision())
			}
			reader.Drop(otherPrefix)
		}
		cancel()
		wg.Wait()
		until := commit(t, writer, write(writer, configMap("last", "blue", 1), 0))
		o.follow(t, beside, until)
	})
}

// TestAWatchOfAnOpenedTableNeverMissesAPart resumes from revisions of before the table was opened: who has them may have seen only a part of
// what they changed, and must begin anew. Who has read the table may resume from what it was given.
func TestAWatchOfAnOpenedTableNeverMissesAPart(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		s1, _ := run(t, b)
		s2, _ := run(t, b)
		one := open(t, s1)
		rev := commit(t, s1, in(one, "a", 1, 0), in(one, "b", 1, 0))
		two := open(t, s2)
		if _, err := two.WatchFrom(rev); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("a watch from within a batch that nobody here has seen: %v", err)
		}
		w, err := two.WatchFrom(two.Snapshot().Rev)
		if err != nil {
			t.Fatalf("a watch from the revision that a list was given: %v", err)
		}
		w.Stop()
	})
}

// forgetful is a backend whose watch forgets at the moment when a prefix is being loaded.
type forgetful struct {
	store.Backend
	watches chan context.CancelFunc // of the watches, as they begin
	during  func()                  // runs once, while a table is being loaded
}

func (f *forgetful) Watch(ctx context.Context, prefix string, from int64, apply func(int64, []store.Change)) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	f.watches <- cancel
	err := f.Backend.Watch(watching, prefix, from, apply)
	if ctx.Err() == nil && watching.Err() != nil {
		return store.ErrTooOld
	}
	return err
}

func (f *forgetful) Load(ctx context.Context, prefix string, visit func(store.KV) error) (int64, error) {
	rev, err := f.Backend.Load(ctx, prefix, visit)
	if during := f.during; prefix == otherSpec().Prefix && during != nil {
		f.during = nil
		during()
	}
	return rev, err
}

func TestATableIsOpenedWholeThoughTheCopyIsLoadedAnew(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		f := &forgetful{Backend: b, watches: make(chan context.CancelFunc, 8)}
		f.during = func() {
			(<-f.watches)()
			value, err := configMap("a", "red", 1).Marshal()
			if err != nil {
				t.Error(err)
			}
			if _, err := b.Commit(t.Context(), []store.Op{{Key: otherPrefix + "a", Value: value}}); err != nil {
				t.Error(err)
			}
		}
		s := store.New(f, slog.New(slog.DiscardHandler), spec())
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		if table := open(t, s); table.Len() != 1 {
			t.Errorf("%d objects, want the one that was made while the table was being opened", table.Len())
		}
	})
}
