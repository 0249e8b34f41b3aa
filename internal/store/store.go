package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

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
	ended    chan struct{}

	maxOps    int             // per transaction
	others    func() bool     // whether others write to the backend
	questions chan chan error // of callers of Fresh

	mu      sync.RWMutex // guards rev and the contents of every table
	rev     int64        // every change up to here is in the copy
	waiters []*waiter    // for rev to be reached

	pendingMu sync.Mutex
	pending   map[string][]*pending // by full key: objects being written, so that the applier need not decode them
}

type waiter struct {
	rev  int64
	done chan struct{}
}

// New returns a Store with one table per spec.
func New(backend Backend, log *slog.Logger, specs ...Spec) *Store {
	s := &Store{
		backend:   backend,
		log:       log,
		tables:    map[string]*Table{},
		requests:  make(chan *request, 1024),
		questions: make(chan chan error, 1024),
		ready:     make(chan struct{}),
		ended:     make(chan struct{}),
		pending:   map[string][]*pending{},
	}
	s.maxOps = maxBatchOps
	if b, ok := backend.(interface{ MaxOps() int }); ok && b.MaxOps() > 0 {
		s.maxOps = b.MaxOps()
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

// Run loads the copy, follows the backend and carries out commits until ctx ends. It may be called once. Commits that are under
// way then, and all later ones, get ErrEnded.
func (s *Store) Run(ctx context.Context) error {
	defer close(s.ended)
	rev, err := s.load(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("loading the store: %w", err)
	}
	close(s.ready)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.follow(ctx, rev); return nil })
	g.Go(func() error { return s.confirm(ctx) })
	for range writers {
		g.Go(func() error { return s.write(ctx) })
	}
	return g.Wait()
}

// reached tells that every change up to rev is in the copy. s.mu is held.
func (s *Store) reached(rev int64) {
	if rev > s.rev {
		s.rev = rev
	}
	if len(s.waiters) == 0 {
		return
	}
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if w.rev <= s.rev {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	clear(s.waiters[len(kept):])
	s.waiters = kept
}

// WaitFor blocks until the copy holds revision rev.
func (s *Store) WaitFor(ctx context.Context, rev int64) error {
	s.mu.Lock()
	if s.rev >= rev {
		s.mu.Unlock()
		return nil
	}
	w := &waiter{rev, make(chan struct{})}
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()
	err := ErrEnded
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.ended:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiters, w); i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
	}
	return err
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
