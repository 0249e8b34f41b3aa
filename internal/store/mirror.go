package store

import "strconv"

// Mirror is a Table that somebody else feeds: the copy, on another machine, of what a server's API shows of one resource. It
// has the same reads, indexes and watches as a Store's own tables.
//
// Changes come from a watch in order ([Mirror.Apply], [Mirror.Replace]) and, earlier than that, from the answers to writes
// ([Mirror.Ahead]). An object never goes back to an older revision.
type Mirror struct {
	table *Table
}

// NewMirror returns an empty mirror with the indexes of spec.
func NewMirror(spec Spec) *Mirror {
	spec.History = 1 // nobody resumes a watch of a mirror from the past
	return &Mirror{table: newTable(&Store{}, spec)}
}

// Table returns the mirror's content.
func (m *Mirror) Table() *Table { return m.table }

// Revision returns up to which revision the feeding watch has come.
func (m *Mirror) Revision() int64 { return m.table.store.Revision() }

// Replace makes objs, by their keys, the whole content as of revision rev. Watchers are told the differences. Objects that are
// newer already stay.
func (m *Mirror) Replace(objs map[string]Object, rev int64) {
	s := m.table.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, have := range m.table.snapshotLocked().all() {
		if _, ok := objs[have.Key]; !ok && have.Rev <= rev {
			m.table.apply(have.Key, nil, rev, false)
		}
	}
	for key, obj := range objs {
		m.put(key, obj)
	}
	s.reached(rev)
}

// Apply takes one change over from the watch: obj, or its deletion.
func (m *Mirror) Apply(key string, obj Object, deleted bool) {
	s := m.table.store
	s.mu.Lock()
	defer s.mu.Unlock()
	rev := revisionOf(obj)
	if deleted {
		if have, ok := m.table.get(key); ok && have.Rev <= rev {
			m.table.apply(key, nil, rev, false)
		}
	} else {
		m.put(key, obj)
	}
	s.reached(rev)
}

// Ahead takes over what a write was answered with, unless the watch has passed it already.
func (m *Mirror) Ahead(key string, obj Object) {
	s := m.table.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if revisionOf(obj) > s.rev {
		m.put(key, obj)
	}
}

// Reached tells that the watch has come to revision rev (a bookmark).
func (m *Mirror) Reached(rev int64) {
	m.table.store.mu.Lock()
	defer m.table.store.mu.Unlock()
	m.table.store.reached(rev)
}

// put stores obj unless what is there is as new. The store's lock is held.
func (m *Mirror) put(key string, obj Object) {
	rev := revisionOf(obj)
	if have, ok := m.table.get(key); ok && have.Rev >= rev {
		return
	}
	m.table.apply(key, obj, rev, false)
}

// revisionOf returns an object's resourceVersion as a number, which KEP-5504 allows to be compared; 0 if it has none.
func revisionOf(obj Object) int64 {
	rev, err := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return rev
}
