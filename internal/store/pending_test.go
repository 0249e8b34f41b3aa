package store

import (
	"reflect"
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

// TestHistoryNeverGivesAPart compares a short history with all that happened to two objects, while old states are being frozen.
func TestHistoryNeverGivesAPart(t *testing.T) {
	encode := func(o Object) ([]byte, error) { return o.(*corev1.ConfigMap).Marshal() }
	decode := func(b []byte) (Object, error) {
		m := &corev1.ConfigMap{}
		return m, m.Unmarshal(b)
	}
	for _, size := range []int{1, 2, 7, historyWarm - 1, historyWarm + 20} {
		h := history{max: size, maxBytes: historyBytes}
		var all []Event
		var current [2]*Revision
		rev := int64(0)
		for i := range 400 {
			rev++
			n := i%2 + 1
			for j := range n {
				e := Event{Type: Modified, Old: current[j], batch: n > 1}
				e.Revision = &Revision{Key: "k", Rev: rev, Object: &corev1.ConfigMap{Data: map[string]string{"rev": FormatRevision(rev)}}}
				switch {
				case current[j] == nil:
					e.Type = Added
				case i%5 == 0:
					e.Type, e.Revision.Object = Deleted, deletedAt(e.Old.Object, rev)
				}
				e.Revision.Object.SetResourceVersion(FormatRevision(rev))
				current[j] = e.Revision
				if e.Type == Deleted {
					current[j] = nil
				}
				h.add(e)
				all = append(all, e)
			}
			h.settle(h.freeze(encode))
			if i%57 > 0 {
				continue
			}
			for from := rev + 1; from >= 0; from -= 1 + (rev-from)/8 { // all of the latest, fewer of the rest
				var want []Event
				for _, e := range all {
					if e.after(from) {
						want = append(want, e)
					}
				}
				found, ok := h.since(from)
				if !ok {
					if len(want) < size {
						t.Fatalf("history of %d at %d: %d events from %d are too old", size, rev, len(want), from)
					}
					continue
				}
				got, err := events(found, decode)
				if err != nil || len(got) != len(want) {
					t.Fatalf("history of %d at %d: %d events from %d, %v; want %d", size, rev, len(got), from, err, len(want))
				}
				for i := range got {
					same(t, got[i].Revision, want[i].Revision)
					same(t, got[i].Old, want[i].Old)
					if got[i].Type != want[i].Type || got[i].batch != want[i].batch {
						t.Fatalf("event %+v, want %+v", got[i], want[i])
					}
				}
			}
		}
		frozen := 0
		for _, e := range h.entries[:h.frozen] {
			if e.old != nil {
				frozen += len(e.old.value)
				if e.old.revision != nil {
					t.Errorf("history of %d: the object at %d is still held", size, e.old.rev)
				}
			}
		}
		if frozen != h.bytes || (size > historyWarm) != (frozen > 0) {
			t.Errorf("history of %d: %d bytes in stored form, %d accounted", size, frozen, h.bytes)
		}
	}
}

func same(t *testing.T, a, b *Revision) {
	t.Helper()
	if a == b {
		return
	}
	if a == nil || b == nil || a.Key != b.Key || a.Rev != b.Rev || !reflect.DeepEqual(a.Object, b.Object) {
		t.Fatalf("%+v, want %+v", a, b)
	}
}

// TestHistoryOfLargeObjects keeps fewer of them.
func TestHistoryOfLargeObjects(t *testing.T) {
	h := history{max: 8192, maxBytes: 1 << 20}
	var old *Revision
	for rev := range int64(2000) {
		e := Event{Revision: &Revision{Rev: rev + 1, Object: &corev1.ConfigMap{}}, Old: old, Type: Modified}
		old = e.Revision
		h.add(e)
		h.settle(h.freeze(func(Object) ([]byte, error) { return make([]byte, 10_000), nil }))
	}
	if n := len(h.entries); n < historyWarm+50 || n > historyWarm+150 {
		t.Errorf("%d events of 10 kB are kept in 1 MB besides the newest %d", n, historyWarm)
	}
}
