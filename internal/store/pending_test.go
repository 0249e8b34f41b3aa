package store

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestWritersOfTheSameBytes writes the same to one key twice. One of the two is refused; whose object gets into the copy depends on who
// queued first, and the one that does not must still come back with its revision, or untouched.
func TestWritersOfTheSameBytes(t *testing.T) {
	s := New(NewMem(), nil)
	objects := []*corev1.ConfigMap{{}, {}}
	var lists [2][]*pending
	for i, o := range objects {
		lists[i] = []*pending{{full: "/registry/configmaps/a", value: []byte("same"), object: o}}
		s.addPending(lists[i])
	}
	if got := s.takePending("/registry/configmaps/a", []byte("other"), 6); got != nil {
		t.Error("taken for other bytes")
	}
	taken := s.takePending("/registry/configmaps/a", []byte("same"), 7)
	if taken != Object(objects[0]) || objects[0].ResourceVersion != "7" {
		t.Fatalf("taken: %+v", taken)
	}
	s.settle(lists[0], 0) // the first is refused: its object is the copy's by now
	s.settle(lists[1], 7)
	if objects[0].ResourceVersion != "7" || objects[1].ResourceVersion != "7" {
		t.Errorf("resourceVersions %q and %q, want 7", objects[0].ResourceVersion, objects[1].ResourceVersion)
	}
	if got := s.takePending("/registry/configmaps/a", []byte("same"), 8); got != nil || len(s.pending) != 0 {
		t.Errorf("%d keys are still pending", len(s.pending))
	}
}

func TestWatcherThatFallsBehindIsTold(t *testing.T) {
	s := New(NewMem(), nil, Spec{Prefix: "/registry/x/"})
	w, _ := s.Table("/registry/x/").WatchNow()
	e := Event{Type: Added, Revision: &Revision{Key: "a", Rev: 1, Object: &corev1.ConfigMap{}}}
	for range watcherLimit {
		w.push(e)
	}
	if events, err := w.Next(t.Context()); err != nil || len(events) != watcherLimit {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for range watcherLimit + 1 {
		w.push(e)
	}
	if _, err := w.Next(t.Context()); err != ErrTooOld {
		t.Errorf("one event too many: %v", err)
	}
	if _, ok := w.Progress(); ok {
		t.Error("progress of a watcher that has lost events")
	}
	w.Stop()
	if len(s.Table("/registry/x/").watchers) != 0 {
		t.Error("still registered")
	}
}

// TestRingNeverGivesAPart compares a small ring with all that happened.
func TestRingNeverGivesAPart(t *testing.T) {
	for size := 1; size < 12; size++ {
		r := ring{max: size}
		var all []Event
		rev := int64(0)
		for i := range 40 {
			rev++
			n := i%3 + 1
			for range n {
				e := Event{Revision: &Revision{Rev: rev}, batch: n > 1}
				r.add(e)
				all = append(all, e)
			}
			for from := int64(0); from <= rev+1; from++ {
				want := 0
				for _, e := range all {
					if e.after(from) {
						want++
					}
				}
				got, ok := r.since(from)
				if ok && len(got) != want {
					t.Fatalf("ring of %d at %d: %d events from %d, want %d", size, rev, len(got), from, want)
				}
				if !ok && want <= size-1 {
					t.Fatalf("ring of %d at %d: %d events from %d are too old", size, rev, want, from)
				}
			}
		}
	}
}
