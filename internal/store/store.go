package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// root is the prefix below which everything lives, as in Kubernetes.
const root = "/registry/"

// Store is the one in-memory copy over a Backend. Make it with New, then Run it.
type Store struct {
	backend  Backend
	log      *slog.Logger
	tables   map[string]*Table // by prefix
	requests chan *request
	ready    chan struct{}

	mu      sync.RWMutex // guards rev and the contents of every table
	rev     int64        // every change up to here is in the copy
	waiters []waiter     // for rev to be reached

	pendingMu sync.Mutex
	pending   map[string][]*pending // by full key: objects being written, so that the applier need not decode them
}

type waiter struct {
	rev  int64
	done chan struct{}
}

type pending struct {
	value  []byte
	object Object
}

// New returns a Store with one table per spec.
func New(backend Backend, log *slog.Logger, specs ...Spec) *Store {
	s := &Store{
		backend:  backend,
		log:      log,
		tables:   map[string]*Table{},
		requests: make(chan *request, 1024),
		ready:    make(chan struct{}),
		pending:  map[string][]*pending{},
	}
	for _, spec := range specs {
		s.tables[spec.Prefix] = newTable(s, spec)
	}
	return s
}

// Table returns the table whose keys begin with prefix ("/registry/pods/"), or nil.
func (s *Store) Table(prefix string) *Table { return s.tables[prefix] }

// Ready is closed once the copy holds everything that was in the backend when Run began.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Revision returns the newest revision that the copy holds.
func (s *Store) Revision() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rev
}

// Sync waits until the copy holds everything that was committed, by anyone, before the call.
func (s *Store) Sync(ctx context.Context) error {
	rev, err := s.backend.Revision(ctx)
	if err != nil {
		return err
	}
	return s.WaitFor(ctx, rev)
}

// Run loads the copy, follows the backend and carries out commits until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	rev, err := s.load(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("loading the store: %w", err)
	}
	close(s.ready)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.follow(ctx, rev) })
	for range writers {
		g.Go(func() error { return s.write(ctx) })
	}
	return g.Wait()
}

// load fills the tables from the backend; objects that are gone from it leave the tables, as a watch would tell.
func (s *Store) load(ctx context.Context) (int64, error) {
	seen := map[string]map[string]bool{}
	var changes []Change
	var revs []int64
	rev, err := s.backend.Load(ctx, root, func(kv KV) error {
		if t, key := s.find(kv.Key); t != nil {
			if seen[t.spec.Prefix] == nil {
				seen[t.spec.Prefix] = map[string]bool{}
			}
			seen[t.spec.Prefix][key] = true
			changes = append(changes, Change{Key: kv.Key, Value: kv.Value})
			revs = append(revs, kv.Rev)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tables {
		for _, r := range t.snapshotLocked().all() {
			if !seen[t.spec.Prefix][r.Key] {
				t.apply(r.Key, nil, rev, false)
			}
		}
	}
	for i, c := range changes {
		t, key := s.find(c.Key)
		if old, ok := t.get(key); ok && old.Rev == revs[i] {
			continue
		}
		s.applyChange(c, revs[i], false)
	}
	for _, t := range s.tables {
		t.cutHistory(rev)
	}
	s.reached(rev)
	return rev, nil
}

// follow applies the backend's changes after revision from, loading anew where the backend no longer has them.
func (s *Store) follow(ctx context.Context, from int64) error {
	for ctx.Err() == nil {
		err := s.backend.Watch(ctx, root, from, func(rev int64, changes []Change) {
			s.mu.Lock()
			defer s.mu.Unlock()
			batch := len(changes) > 1
			for _, c := range changes {
				s.applyChange(c, rev, batch)
			}
			s.reached(rev)
			from = rev
		})
		if err == nil || ctx.Err() != nil {
			return nil
		}
		s.log.Warn("following the store failed, trying again", "err", err, "revision", from)
		if errors.Is(err, ErrTooOld) {
			if from, err = s.load(ctx); err == nil {
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// applyChange puts one change into its table. s.mu is held.
func (s *Store) applyChange(c Change, rev int64, batch bool) {
	t, key := s.find(c.Key)
	if t == nil {
		return
	}
	if c.Value == nil {
		t.apply(key, nil, rev, batch)
		return
	}
	obj := s.takePending(c.Key, c.Value)
	if obj == nil {
		var err error
		if obj, err = t.spec.Decode(c.Value); err != nil {
			s.log.Error("an object in the store cannot be read and is not shown", "key", c.Key, "revision", rev, "err", err)
			return
		}
	}
	obj.SetResourceVersion(FormatRevision(rev))
	t.apply(key, obj, rev, batch)
}

// reached tells that every change up to rev is in the copy. s.mu is held.
func (s *Store) reached(rev int64) {
	if rev > s.rev {
		s.rev = rev
	}
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if w.rev <= s.rev {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	s.waiters = kept
}

// WaitFor blocks until the copy holds revision rev.
func (s *Store) WaitFor(ctx context.Context, rev int64) error {
	s.mu.Lock()
	if s.rev >= rev {
		s.mu.Unlock()
		return nil
	}
	w := waiter{rev, make(chan struct{})}
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// find returns the table of a full key and the key within it. Prefixes have one or two segments below /registry/.
func (s *Store) find(full string) (*Table, string) {
	rest := full[len(root):]
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return nil, ""
	}
	if t := s.tables[full[:len(root)+i+1]]; t != nil {
		return t, rest[i+1:]
	}
	j := strings.IndexByte(rest[i+1:], '/')
	if j < 0 {
		return nil, ""
	}
	n := i + 1 + j + 1
	if t := s.tables[full[:len(root)+n]]; t != nil {
		return t, rest[n:]
	}
	return nil, ""
}

func (s *Store) addPending(full string, p *pending) {
	s.pendingMu.Lock()
	s.pending[full] = append(s.pending[full], p)
	s.pendingMu.Unlock()
}

func (s *Store) dropPending(full string, p *pending) {
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	list := s.pending[full]
	for i := range list {
		if list[i] == p {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(s.pending, full)
	} else {
		s.pending[full] = list
	}
}

// takePending returns the object that a writer in this process encoded to value, once.
func (s *Store) takePending(full string, value []byte) Object {
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	for _, p := range s.pending[full] {
		if p.object != nil && bytes.Equal(p.value, value) {
			obj := p.object
			p.object = nil
			return obj
		}
	}
	return nil
}
