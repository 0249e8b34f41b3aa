package store

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/tidwall/btree"
)

// Spec declares a table: where its objects live and how they become bytes.
type Spec struct {
	Prefix string // "/registry/pods/"
	// Encode makes the stored form; the object carries no resourceVersion. Decode is its inverse.
	Encode func(Object) ([]byte, error)
	Decode func([]byte) (Object, error)
	// Indexes map an object to the values under which the named index holds it.
	Indexes map[string]func(Object) []string
	// Share, if set, makes an object that nobody else has yet share what it says twice. It writes nothing but the object itself: what
	// is behind its pointers, maps and slices may be shared with others already.
	Share func(Object)
	// Compact says that objects take no more memory than their stored form does: the history keeps them as they are.
	Compact bool
	// History is how many changes are kept for watches that begin in the past; 0 means 8192.
	History int
}

// Table holds the objects of one resource. The store's lock guards it.
type Table struct {
	store    *Store
	spec     Spec
	tree     *btree.BTreeG[*Revision]
	snap     *Snapshot // of the present content, or nil
	changed  int64     // the newest revision at which the content changed, at the latest
	indexes  map[string]map[string]*btree.BTreeG[*Revision]
	history  history
	watchers map[*Watcher]struct{}
	dropped  atomic.Bool
	// reloading says that what is applied is the difference to what was loaded anew.
	reloading bool
	// byIndex holds the watchers that asked for one value of one index.
	byIndex map[string]map[string]map[*Watcher]struct{}
}

func newTable(s *Store, spec Spec) *Table {
	if spec.History == 0 {
		spec.History = 8192
	}
	t := &Table{
		store: s, spec: spec, tree: newTree(),
		indexes:  map[string]map[string]*btree.BTreeG[*Revision]{},
		history:  history{max: spec.History, maxBytes: historyBytes},
		watchers: map[*Watcher]struct{}{},
		byIndex:  map[string]map[string]map[*Watcher]struct{}{},
	}
	for name := range spec.Indexes {
		t.indexes[name] = map[string]*btree.BTreeG[*Revision]{}
		t.byIndex[name] = map[string]map[*Watcher]struct{}{}
	}
	return t
}

func newTree() *btree.BTreeG[*Revision] {
	return btree.NewBTreeGOptions(func(a, b *Revision) bool { return a.Key < b.Key }, btree.Options{NoLocks: true})
}

// Prefix returns the prefix of the table's keys.
func (t *Table) Prefix() string { return t.spec.Prefix }

// HasIndex tells whether the table keeps the named index.
func (t *Table) HasIndex(name string) bool { return t.spec.Indexes[name] != nil }

// Get returns the present revision of the object at key.
func (t *Table) Get(key string) (*Revision, bool) {
	t.store.mu.RLock()
	defer t.store.mu.RUnlock()
	return t.get(key)
}

func (t *Table) get(key string) (*Revision, bool) {
	return t.tree.Get(&Revision{Key: key})
}

// Len returns how many objects there are.
func (t *Table) Len() int {
	t.store.mu.RLock()
	defer t.store.mu.RUnlock()
	return t.tree.Len()
}

// Changed returns a revision that is another one whenever the content is.
func (t *Table) Changed() int64 {
	t.store.mu.RLock()
	defer t.store.mu.RUnlock()
	return t.changed
}

// Lookup returns the objects for which the named index holds value, in key order, as of one revision.
func (t *Table) Lookup(index, value string) []*Revision {
	t.store.mu.RLock()
	defer t.store.mu.RUnlock()
	return t.lookup(index, value)
}

// LookupAt is Lookup that also returns the revision.
func (t *Table) LookupAt(index, value string) ([]*Revision, int64) {
	t.store.mu.RLock()
	defer t.store.mu.RUnlock()
	return t.lookup(index, value), t.store.rev
}

func (t *Table) lookup(index, value string) []*Revision {
	tree := t.indexes[index][value]
	if tree == nil {
		return nil
	}
	out := make([]*Revision, 0, tree.Len())
	tree.Scan(func(r *Revision) bool { out = append(out, r); return true })
	return out
}

// Snapshot returns the table's content as of one revision; it costs next to nothing and never changes.
func (t *Table) Snapshot() *Snapshot {
	t.store.mu.RLock()
	if s := t.snap; s != nil {
		if s.Rev != t.store.rev {
			s = s.at(t.store.rev)
		}
		t.store.mu.RUnlock()
		return s
	}
	t.store.mu.RUnlock()
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	return t.snapshotLocked()
}

func (t *Table) snapshotLocked() *Snapshot {
	if t.snap == nil {
		t.snap = &Snapshot{Rev: t.store.rev, since: t.changed, tree: t.tree.IsoCopy()}
	}
	return t.snap.at(t.store.rev)
}

// Snapshot is a table's content at revision Rev.
type Snapshot struct {
	Rev   int64
	since int64 // the content is the same at all revisions from here to Rev
	tree  *btree.BTreeG[*Revision]
}

func (s *Snapshot) at(rev int64) *Snapshot { return &Snapshot{Rev: rev, since: s.since, tree: s.tree} }

// At returns the same content as a snapshot of revision rev, if it was the same then.
func (s *Snapshot) At(rev int64) (*Snapshot, bool) {
	if rev < s.since || rev > s.Rev {
		return nil, false
	}
	return s.at(rev), true
}

// Len returns how many objects the snapshot holds.
func (s *Snapshot) Len() int { return s.tree.Len() }

// Ascend visits the objects whose keys begin with prefix ("" for all, "NAMESPACE/"), from key from on, in order, until visit
// returns false.
func (s *Snapshot) Ascend(prefix, from string, visit func(*Revision) bool) {
	if from < prefix {
		from = prefix
	}
	s.tree.Ascend(&Revision{Key: from}, func(r *Revision) bool {
		if !strings.HasPrefix(r.Key, prefix) {
			return false
		}
		return visit(r)
	})
}

func (s *Snapshot) all() []*Revision {
	out := make([]*Revision, 0, s.tree.Len())
	s.tree.Scan(func(r *Revision) bool { out = append(out, r); return true })
	return out
}

// apply puts obj (nil: nothing) at key as of rev and tells the watchers. The store's lock is held.
func (t *Table) apply(key string, obj Object, rev int64, batch bool) {
	old, existed := t.get(key)
	if !existed {
		old = nil
	}
	if obj == nil && old == nil {
		return
	}
	e := Event{Type: Modified, Old: old, batch: batch, Reloaded: t.reloading}
	t.snap, t.changed = nil, max(t.changed, rev)
	if obj == nil {
		e.Type = Deleted
		e.Revision = &Revision{Key: key, Rev: rev, Object: deletedAt(old.Object, rev)}
		t.tree.Delete(old)
	} else {
		e.Revision = &Revision{Key: key, Rev: rev, Object: obj}
		if old == nil {
			e.Type = Added
		}
		t.tree.Set(e.Revision)
	}
	if old != nil {
		old.forget()
	}
	for name, values := range t.spec.Indexes {
		t.reindex(name, values, e)
	}
	t.history.add(e)
	for w := range t.watchers {
		w.push(e)
	}
}

// reindex moves an object within one index and tells the watchers of the values it left and entered.
func (t *Table) reindex(name string, values func(Object) []string, e Event) {
	var before, after []string
	if e.Old != nil {
		before = values(e.Old.Object)
	}
	if e.Type != Deleted {
		after = values(e.Revision.Object)
	}
	index, watched := t.indexes[name], t.byIndex[name]
	for i, v := range before {
		if slices.Contains(before[:i], v) {
			continue
		}
		if tree := index[v]; tree != nil {
			tree.Delete(e.Old)
			if tree.Len() == 0 {
				delete(index, v)
			}
		}
		for w := range watched[v] {
			w.push(e)
		}
	}
	for i, v := range after {
		if slices.Contains(after[:i], v) {
			continue
		}
		tree := index[v]
		if tree == nil {
			tree = newTree()
			index[v] = tree
		}
		tree.Set(e.Revision)
		if slices.Contains(before, v) {
			continue
		}
		for w := range watched[v] {
			w.push(e)
		}
	}
}

// cutHistory forgets the past: watches cannot begin before rev.
func (t *Table) cutHistory(rev int64) {
	t.history = history{max: t.spec.History, maxBytes: historyBytes, floor: rev}
}

// Holds tells whether the named index holds o under value.
func (t *Table) Holds(index, value string, o Object) bool {
	return slices.Contains(t.spec.Indexes[index](o), value)
}
