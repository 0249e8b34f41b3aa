package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/knarr-io/knarr/internal/store"
)

func colors(o store.Object) []string {
	if c := o.GetLabels()["color"]; c != "" {
		return strings.Split(c, ".")
	}
	return nil
}

// TestIndexesFollowTheirModel writes at random and compares index, index watchers and snapshots with a map.
func TestIndexesFollowTheirModel(t *testing.T) {
	all := []string{"", "red", "blue", "red.blue", "red.red", "green.blue.red"}
	rapid.Check(t, func(rt *rapid.T) {
		s, stop := run(t, store.NewMem())
		defer stop()
		table := s.Table(prefix)
		w, _ := table.WatchIndex("color", "red")
		defer w.Stop()
		model, seen := map[string]string{}, map[string]bool{}
		for i := range rapid.IntRange(1, 25).Draw(rt, "steps") {
			key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "key")
			color := rapid.SampledFrom(all).Draw(rt, "color")
			m := store.Mutation{Table: table, Key: key, If: store.Any}
			if rapid.IntRange(0, 3).Draw(rt, "delete") > 0 {
				m.Object = configMap(key, color, i)
				model[key] = color
			} else {
				delete(model, key)
			}
			before := table.Snapshot()
			had := before.Len()
			commit(t, s, m)
			if before.Len() != had {
				rt.Fatal("a snapshot changed")
			}
		}
		red := map[string]bool{}
		for k, c := range model {
			if slices.Contains(strings.Split(c, "."), "red") {
				red[k] = true
			}
		}
		var found []string
		for _, r := range table.Lookup("color", "red") {
			found = append(found, r.Key)
		}
		if want := slices.Sorted(maps.Keys(red)); !slices.Equal(found, want) {
			rt.Fatalf("the index has %v, want %v", found, want)
		}
		if _, ok := w.Progress(); !ok {
			events, err := w.Next(t.Context())
			if err != nil {
				rt.Fatal(err)
			}
			holds := func(o store.Object) bool { return table.Holds("color", "red", o) }
			for _, e := range events {
				e, ok := e.Filter(holds)
				if !ok {
					rt.Fatal("the watcher of an index was told what is none of its business")
				}
				switch known := seen[e.Revision.Key]; {
				case e.Type == store.Added && known, e.Type != store.Added && !known:
					rt.Fatalf("%s: event type %d, known: %v", e.Revision.Key, e.Type, known)
				case e.Type == store.Deleted:
					delete(seen, e.Revision.Key)
				default:
					seen[e.Revision.Key] = true
				}
			}
		}
		if !maps.Equal(seen, red) {
			rt.Fatalf("the watcher knows %v, want %v", seen, red)
		}
	})
}

// TestResume begins watches at every revision of a history of batches: each gets all that came after it, and its own batch again.
func TestResume(t *testing.T) {
	s, _ := run(t, store.NewMem())
	type change struct {
		rev   int64
		batch bool
	}
	var history []change
	start := s.Revision()
	for i := range 30 {
		group := []store.Mutation{write(s, configMap(fmt.Sprint(i, "a"), "", 0), 0)}
		for j := range i % 4 {
			group = append(group, write(s, configMap(fmt.Sprint(i, "b", j), "", 0), 0))
		}
		rev := commit(t, s, group...)
		for range group {
			history = append(history, change{rev, len(group) > 1})
		}
	}
	for from := start; from <= s.Revision(); from++ {
		want := 0
		for _, c := range history {
			if c.rev > from || c.rev == from && c.batch {
				want++
			}
		}
		w, err := s.Table(prefix).WatchFrom(from)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if want > 0 {
			events, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got = len(events)
		}
		if got != want {
			t.Errorf("from %d: %d events, want %d", from, got, want)
		}
		w.Stop()
		if _, err := w.Next(t.Context()); !errors.Is(err, store.ErrStopped) {
			t.Errorf("after Stop: %v", err)
		}
	}
	// From the future: nothing until then, then what comes after.
	ahead := s.Revision() + 1
	w, err := s.Table(prefix).WatchFrom(ahead)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, ok := w.Progress(); ok {
		t.Error("progress before the revision from which the watch began")
	}
	commit(t, s, write(s, configMap("at", "", 0), 0))
	commit(t, s, write(s, configMap("after", "", 0), 0))
	if events, err := w.Next(t.Context()); err != nil || len(events) != 1 || events[0].Revision.Key != "after" {
		t.Errorf("a watch from the future: %v, %v", events, err)
	}
}

// lossy is a backend that can be cut off: what happens meanwhile is compacted away.
type lossy struct {
	*store.Mem
	cut chan struct{} // closed: nothing is told any more
	ok  chan struct{} // closed: watches begin again
}

func (l *lossy) Watch(ctx context.Context, prefix string, from int64, apply func(int64, []store.Change)) error {
	select {
	case <-l.cut:
		select {
		case <-l.ok:
		case <-ctx.Done():
			return nil
		}
		return l.Mem.Watch(ctx, prefix, from, apply)
	default:
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	return l.Mem.Watch(inner, prefix, from, func(rev int64, changes []store.Change) {
		select {
		case <-l.cut:
			cancel()
		default:
			apply(rev, changes)
		}
	})
}

func TestReloadTellsTheDifferenceInOrder(t *testing.T) {
	b := &lossy{store.NewMem(), make(chan struct{}), make(chan struct{})}
	s, _ := run(t, b)
	for _, name := range []string{"changed", "deleted", "kept", "replaced"} {
		commit(t, s, write(s, configMap(name, "red", 1), 0))
	}
	w, _ := s.Table(prefix).WatchNow()
	defer w.Stop()
	index, _ := s.Table(prefix).WatchIndex("color", "red")
	defer index.Stop()
	before := s.Revision()

	close(b.cut)
	raw := func(name string, n int) {
		o := configMap(name, "red", n)
		if name == "replaced" {
			o.UID = "another"
		}
		value, err := o.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Commit(t.Context(), []store.Op{{Key: prefix + name, Value: value, If: store.Any}}); err != nil {
			t.Fatal(err)
		}
	}
	raw("replaced", 2)
	if _, err := b.Commit(t.Context(), []store.Op{{Key: prefix + "deleted", If: store.Any}}); err != nil {
		t.Fatal(err)
	}
	raw("zzz", 2) // new
	raw("changed", 2)
	rev, _ := b.Revision(t.Context())
	b.Compact(rev)
	close(b.ok)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	events, err := w.Next(ctx)
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprint(e.Revision.Key, "/", e.Type))
		if !e.Reloaded {
			t.Errorf("the difference in %s does not say that it is one", e.Revision.Key)
		}
	}
	want := fmt.Sprintf("[replaced/%d replaced/%d zzz/%d changed/%d deleted/%d]", store.Deleted, store.Added, store.Added, store.Modified, store.Deleted)
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("told %v, %v; want %s", got, err, want)
	}
	last := int64(0)
	for _, e := range events {
		if e.Revision.Rev < last {
			t.Errorf("%s at %d after %d", e.Revision.Key, e.Revision.Rev, last)
		}
		last = e.Revision.Rev
	}
	if events, err := index.Next(ctx); err != nil || len(events) != 5 {
		t.Errorf("the index watcher was told %d events, %v", len(events), err)
	}
	for from := before; from <= last; from++ {
		if _, err := s.Table(prefix).WatchFrom(from); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("resuming from %d, not after the reload at %d: %v", from, last, err)
		}
	}
	again, err := s.Table(prefix).WatchFrom(s.Revision())
	if err != nil {
		t.Fatalf("resuming from where the copy is after the reload: %v", err)
	}
	again.Stop()
	commit(t, s, write(s, configMap("next", "", 1), 0)) // life goes on
	if events, err := w.Next(ctx); err != nil || len(events) != 1 || events[0].Reloaded {
		t.Errorf("told of a write after the reload: %v, %v", events, err)
	}
}

func TestUnreadableObjectsAreNotShown(t *testing.T) {
	b := store.NewMem()
	s, _ := run(t, b)
	commit(t, s, write(s, configMap("a", "red", 1), 0))
	w, _ := s.Table(prefix).WatchNow()
	defer w.Stop()
	if _, err := b.Commit(t.Context(), []store.Op{{Key: prefix + "a", Value: []byte{0xff}, If: store.Any}, {Key: prefix + "b", Value: []byte{0xff}, If: 0}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Table(prefix).Len() != 0 || len(s.Table(prefix).Lookup("color", "red")) != 0 {
		t.Error("an object that cannot be read is shown as it was before")
	}
	if events, err := w.Next(t.Context()); err != nil || len(events) != 1 || events[0].Type != store.Deleted {
		t.Errorf("told %v, %v", events, err)
	}
	if _, err := s.Commit(t.Context(), write(s, configMap("b", "", 1), 0)); !errors.As(err, new(*store.ConflictError)) {
		t.Errorf("creating what is there and cannot be read: %v", err)
	}
}

// elsewhere is a backend that another server writes to at the moment when everything is loaded.
type elsewhere struct {
	store.Backend
	write func() int64
	wrote int64
}

func (e *elsewhere) Load(ctx context.Context, prefix string, visit func(store.KV) error) (int64, error) {
	e.wrote = e.write()
	return e.Backend.Load(ctx, prefix, visit)
}

// TestAWatchDoesNotResumeInAnotherServersBatch: who saw a part of a batch through the server that wrote it must not resume from it here, as if
// all had been seen. Who has listed here may resume from what the list says, and sees everything after it.
func TestAWatchDoesNotResumeInAnotherServersBatch(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		one, _ := run(t, b)
		e := &elsewhere{Backend: b}
		e.write = func() int64 {
			return commit(t, one, write(one, configMap("x", "red", 1), 0), write(one, configMap("y", "red", 1), 0))
		}
		two := store.New(e, slog.New(slog.DiscardHandler), spec())
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = two.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		<-two.Ready()
		table := two.Table(prefix)
		if _, err := table.WatchFrom(e.wrote); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("resuming from within another server's batch: %v", err)
		}
		w, err := table.WatchFrom(table.Snapshot().Rev)
		if err != nil || table.Len() != 2 {
			t.Fatalf("resuming from where a list of %d objects was: %v", table.Len(), err)
		}
		defer w.Stop()
		commit(t, one, write(one, configMap("z", "red", 1), 0))
		events, err := w.Next(ctx)
		if err != nil || len(events) != 1 || events[0].Revision.Key != "z" {
			t.Errorf("what comes after: %v, %v", events, err)
		}
	})
}
