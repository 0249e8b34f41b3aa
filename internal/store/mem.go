package store

import (
	"context"
	"sort"
	"strings"
	"sync"
)

// Mem is a Backend in memory, for tests and simulated clusters. The zero value is not ready; use NewMem.
type Mem struct {
	mu      sync.Mutex
	rev     int64
	data    map[string]KV
	history []memChanges // what is not compacted
	floor   int64        // the newest revision that is
	grown   chan struct{}
}

// memHistory is how many transactions are kept that the watch has seen.
const memHistory = 4096

type memChanges struct {
	rev     int64
	changes []Change
}

// NewMem returns an empty Mem at revision 1, as etcd begins.
func NewMem() *Mem {
	return &Mem{rev: 1, data: map[string]KV{}, grown: make(chan struct{})}
}

// Commit implements Backend.
func (m *Mem) Commit(ctx context.Context, ops []Op) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	conflict := ConflictError{Rev: m.rev}
	for i, op := range ops {
		if op.If != Any && m.data[op.Key].Rev != op.If {
			conflict.Ops = append(conflict.Ops, i)
		}
	}
	if len(conflict.Ops) > 0 {
		return 0, &conflict
	}
	rev := m.rev + 1
	changes := make([]Change, 0, len(ops))
	for _, op := range ops {
		if op.Check {
			continue
		}
		if op.Value == nil {
			if _, ok := m.data[op.Key]; !ok {
				continue
			}
			delete(m.data, op.Key)
		} else {
			m.data[op.Key] = KV{Key: op.Key, Value: op.Value, Rev: rev}
		}
		changes = append(changes, Change{Key: op.Key, Value: op.Value})
	}
	if len(changes) == 0 {
		return m.rev, nil
	}
	m.rev = rev
	m.history = append(m.history, memChanges{rev, changes})
	close(m.grown)
	m.grown = make(chan struct{})
	return rev, nil
}

// Load implements Backend.
func (m *Mem) Load(_ context.Context, prefix string, visit func(KV) error) (int64, error) {
	m.mu.Lock()
	rev := m.rev
	var kvs []KV
	for k, kv := range m.data {
		if strings.HasPrefix(k, prefix) {
			kvs = append(kvs, kv)
		}
	}
	m.mu.Unlock()
	sort.Slice(kvs, func(i, j int) bool { return kvs[i].Key < kvs[j].Key })
	for _, kv := range kvs {
		if err := visit(kv); err != nil {
			return 0, err
		}
	}
	return rev, nil
}

// Watch implements Backend.
func (m *Mem) Watch(ctx context.Context, prefix string, from int64, apply func(int64, []Change)) error {
	for {
		m.mu.Lock()
		if from < m.floor {
			m.mu.Unlock()
			return ErrTooOld
		}
		i := sort.Search(len(m.history), func(i int) bool { return m.history[i].rev > from })
		batch, grown := m.history[i:len(m.history):len(m.history)], m.grown
		if i > memHistory {
			m.compact(m.history[i-1].rev) // this reader, the only one outside tests, has seen so much
		}
		m.mu.Unlock()
		for _, h := range batch {
			if ctx.Err() != nil {
				return nil
			}
			var mine []Change
			for _, c := range h.changes {
				if strings.HasPrefix(c.Key, prefix) {
					mine = append(mine, c)
				}
			}
			apply(h.rev, mine)
			from = h.rev
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-grown:
		}
	}
}

// Compact forgets the changes up to rev, as etcd does now and then.
func (m *Mem) Compact(rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.compact(rev)
}

func (m *Mem) compact(rev int64) {
	i := sort.Search(len(m.history), func(i int) bool { return m.history[i].rev > rev })
	m.history = append([]memChanges(nil), m.history[i:]...)
	m.floor = max(m.floor, rev)
}

// Revision implements Backend.
func (m *Mem) Revision(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rev, nil
}
