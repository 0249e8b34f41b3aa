package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knarr-io/knarr/internal/store"
)

const fenceKey = "/registry/knarr/leader"

func TestBackendChecksWithoutWriting(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		rev, err := b.Commit(t.Context(), []store.Op{put("fence", "1", 0)})
		if err != nil {
			t.Fatal(err)
		}
		check := func(rev int64) store.Op { return store.Op{Key: "/registry/fence", If: rev, Check: true} }
		if _, err := b.Commit(t.Context(), []store.Op{put("a", "1", 0), check(rev)}); err != nil {
			t.Errorf("a check that holds: %v", err)
		}
		var conflict *store.ConflictError
		if _, err := b.Commit(t.Context(), []store.Op{put("b", "1", 0), check(rev + 1)}); !errors.As(err, &conflict) || len(conflict.Ops) != 1 || conflict.Ops[0] != 1 {
			t.Errorf("a check that does not hold: %v", err)
		}
		got := ""
		if _, err := b.Load(t.Context(), "/registry/", func(kv store.KV) error {
			got += fmt.Sprintf("%s=%s@%d ", kv.Key[len("/registry/"):], kv.Value, kv.Rev-rev)
			return nil
		}); err != nil || got != "a=1@1 fence=1@0 " {
			t.Errorf("stored: %q %v", got, err)
		}
	})
}

func TestFenceKeepsOutWhoLedBefore(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		s1, _ := run(t, b)
		s2, _ := run(t, b)
		<-s1.Ready()
		<-s2.Ready()
		ctx := t.Context()
		first, err := s1.TakeFence(ctx, fenceKey, []byte("s1"))
		if err != nil {
			t.Fatal(err)
		}
		write := func(s *store.Store, f *store.Fence, name string) error {
			if f != nil {
				ctx = store.WithFence(t.Context(), f)
			} else {
				ctx = t.Context()
			}
			_, err := s.Commit(ctx, store.Mutation{Table: s.Table(prefix), Key: name, Object: configMap(name, "red", 1)})
			return err
		}
		if err := write(s1, first, "a"); err != nil {
			t.Errorf("the leader's write: %v", err)
		}
		second, err := s2.TakeFence(t.Context(), fenceKey, []byte("s2"))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s2.Table(prefix).Get("a"); !ok {
			t.Error("the new leader has not seen what the old one wrote")
		}
		if err := write(s1, first, "b"); !errors.Is(err, store.ErrFenced) {
			t.Errorf("a late write of the old leader: %v", err)
		}
		select {
		case <-first.Lost():
		default:
			t.Error("the old leader is not told")
		}
		if err := write(s2, second, "b"); err != nil {
			t.Errorf("the new leader's write: %v", err)
		}
		if err := write(s1, nil, "c"); err != nil {
			t.Errorf("a write of a client through the old leader: %v", err)
		}
		select {
		case <-second.Lost():
			t.Error("the new leader is told that it is none")
		default:
		}
	})
}

// TestOneOfManyLeaders lets servers take the fence from one another all the time: each write that is acknowledged was made by who had the fence
// then, so the numbers that the leaders count up never repeat, and none is lost.
func TestOneOfManyLeaders(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		const servers, counts = 3, 40
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var done, fenced atomic.Int64
		var wg sync.WaitGroup
		for i := range servers {
			s, _ := run(t, b)
			<-s.Ready()
			wg.Go(func() {
				for ctx.Err() == nil && done.Load() < counts {
					f, err := s.TakeFence(ctx, fenceKey, fmt.Appendf(nil, "s%d", i))
					if errors.As(err, new(*store.ConflictError)) {
						continue
					}
					if err != nil {
						t.Errorf("taking the fence: %v", err)
						return
					}
					for range 5 { // as leader
						n := 0
						if rev, ok := s.Table(prefix).Get("n"); ok {
							n = count(rev.Object)
						}
						// Any: only the fence keeps two leaders apart.
						_, err := s.Commit(store.WithFence(ctx, f), store.Mutation{Table: s.Table(prefix), Key: "n", Object: configMap("n", "red", n+1), If: store.Any})
						if errors.Is(err, store.ErrFenced) {
							fenced.Add(1)
							break
						}
						if err != nil {
							t.Errorf("a leader's write: %v", err)
							return
						}
						done.Add(1)
					}
				}
			})
		}
		wg.Wait()
		last, _ := run(t, b)
		<-last.Ready()
		rev, ok := last.Table(prefix).Get("n")
		if !ok || int64(count(rev.Object)) != done.Load() {
			t.Errorf("%d writes were acknowledged, and the count is at %v", done.Load(), rev)
		}
		t.Logf("%d writes, %d refused", done.Load(), fenced.Load())
	})
}

func TestFencedAndOtherWritesShareABatch(t *testing.T) {
	m := store.NewMem()
	s, _ := run(t, m)
	<-s.Ready()
	old, err := s.TakeFence(t.Context(), fenceKey, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	now, err := s.TakeFence(t.Context(), fenceKey, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			ctx, want := t.Context(), error(nil)
			switch i % 3 {
			case 1:
				ctx = store.WithFence(ctx, now)
			case 2:
				ctx, want = store.WithFence(ctx, old), store.ErrFenced
			}
			name := fmt.Sprint("n", i)
			if _, err := s.Commit(ctx, store.Mutation{Table: s.Table(prefix), Key: name, Object: configMap(name, "red", 1)}); !errors.Is(err, want) {
				t.Errorf("write %d: %v, want %v", i, err, want)
			}
			if _, ok := s.Table(prefix).Get(name); ok != (want == nil) {
				t.Errorf("write %d: is there: %v", i, ok)
			}
		})
	}
	wg.Wait()
}

// slowBackend counts how often it is asked for its revision, and takes its time.
type slowBackend struct {
	store.Backend
	asked atomic.Int64
	gate  chan struct{}
}

func (b *slowBackend) Revision(ctx context.Context) (int64, error) {
	b.asked.Add(1)
	<-b.gate
	return b.Backend.Revision(ctx)
}

func TestFreshReadsShareAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &slowBackend{Backend: store.NewMem(), gate: make(chan struct{})}
		s := store.New(b, slog.New(slog.DiscardHandler), spec())
		var several atomic.Bool
		s.SharedWith(several.Load)
		ctx, cancel := context.WithCancel(context.Background())
		var wg, readers sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("the store failed: %v", err)
			}
		})
		<-s.Ready()
		if err := s.Fresh(ctx); err != nil || b.asked.Load() != 0 {
			t.Errorf("alone: %v, asked %d times", err, b.asked.Load())
		}
		several.Store(true)
		for range 100 {
			readers.Go(func() {
				if err := s.Fresh(ctx); err != nil {
					t.Errorf("a read: %v", err)
				}
			})
		}
		synctest.Wait() // one question is under way; those who came too late for it wait for the next
		rev, err := b.Backend.Commit(ctx, []store.Op{put("configmaps/x", "", 0)})
		if err != nil {
			t.Error(err)
		}
		close(b.gate)
		readers.Wait()
		if n := b.asked.Load(); n < 1 || n > 2 {
			t.Errorf("100 reads asked %d times", n)
		}
		if err := s.Fresh(ctx); err != nil || s.Revision() < rev {
			t.Errorf("the copy is at %d, want %d: %v", s.Revision(), rev, err)
		}
	})
}

func TestFreshReadsEndWithTheirCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &slowBackend{Backend: store.NewMem(), gate: make(chan struct{})}
		s := store.New(b, slog.New(slog.DiscardHandler), spec())
		s.SharedWith(func() bool { return true })
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { _ = s.Run(ctx) })
		<-s.Ready()
		within, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		if err := s.Fresh(within); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a read of a server that is cut off: %v", err)
		}
		close(b.gate)
		cancel()
		wg.Wait()
		if err := s.Fresh(context.Background()); !errors.Is(err, store.ErrEnded) {
			t.Errorf("a read after the end: %v", err)
		}
	})
}
