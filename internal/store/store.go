package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// root is the prefix below which everything lives, as in Kubernetes.
const root = "/registry/"

// Store is the one in-memory copy over a Backend. Make it with New, then Run it.
type Store struct {
	backend  Backend
	log      *slog.Logger
	tables   atomic.Pointer[map[string]*Table] // by prefix; replaced as a whole, under mu
	requests chan *request
	ready    chan struct{}
	ended    chan struct{}

	maxOps    int             // per transaction
	others    func() bool     // whether others write to the backend
	questions chan chan error // of callers of Fresh

	loading sync.Mutex   // held while everything is loaded anew
	mu      sync.RWMutex // guards rev and the contents of every table
	rev     int64        // every change up to here is in the copy
	waiters []*waiter    // for rev to be reached
	// openings are tables that are being opened, by prefix.
	openings map[string]*opening

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
		openings:  map[string]*opening{},
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
	tables := map[string]*Table{}
	for _, spec := range specs {
		tables[spec.Prefix] = newTable(s, spec)
	}
	s.tables.Store(&tables)
	return s
}

// Table returns the table whose keys begin with prefix ("/registry/pods/"), or nil.
func (s *Store) Table(prefix string) *Table { return (*s.tables.Load())[prefix] }

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
	rev, settled, err := s.load(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("loading the store: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.follow(ctx, rev); return nil })
	g.Go(func() error {
		if s.WaitFor(ctx, settled) == nil {
			close(s.ready)
		}
		return nil
	})
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

// find returns the table of a full key and the key within it.
func (s *Store) find(full string) (*Table, string) {
	tables := *s.tables.Load()
	prefix, key := split(full, func(prefix string) bool { return tables[prefix] != nil })
	return tables[prefix], key
}

// split takes a full key apart where a prefix ends that is known: one or two segments below /registry/.
func split(full string, known func(prefix string) bool) (prefix, key string) {
	end := len(root)
	for range 2 {
		i := strings.IndexByte(full[end:], '/')
		if i < 0 {
			return "", ""
		}
		if end += i + 1; known(full[:end]) {
			return full[:end], full[end:]
		}
	}
	return "", ""
}
