package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/knarr-io/knarr/internal/store"
)

// held is a backend whose transactions wait to be let through, once it is closed.
type held struct {
	*store.Mem
	mu     sync.Mutex
	closed bool
	begun  [][]store.Op
	gate   chan struct{}
}

func (h *held) Commit(ctx context.Context, ops []store.Op) (int64, error) {
	h.mu.Lock()
	closed := h.closed
	if closed {
		h.begun = append(h.begun, ops)
	}
	h.mu.Unlock()
	if closed {
		<-h.gate
	}
	return h.Mem.Commit(ctx, ops)
}

func (h *held) transactions() [][]store.Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([][]store.Op(nil), h.begun...)
}

// hold runs test in a bubble with a store over a backend that holds each transaction up.
func hold(t *testing.T, test func(t *testing.T, s *store.Store, h *held, writers *sync.WaitGroup)) {
	synctest.Test(t, func(t *testing.T) {
		h := &held{Mem: store.NewMem(), gate: make(chan struct{})}
		s := store.New(h, slog.New(slog.DiscardHandler), spec())
		ctx, cancel := context.WithCancel(context.Background())
		var running, writers sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		<-s.Ready()
		h.mu.Lock()
		h.closed = true
		h.mu.Unlock()
		test(t, s, h, &writers)
		close(h.gate)
		writers.Wait()
		cancel()
		running.Wait()
	})
}

func TestWaitingGroupsShareTheNextTransaction(t *testing.T) {
	hold(t, func(t *testing.T, s *store.Store, h *held, writers *sync.WaitGroup) {
		commit := func(name string, want error) {
			writers.Go(func() {
				_, err := s.Commit(context.Background(), write(s, configMap(name, "", 1), 0))
				if (err == nil) != (want == nil) || want != nil && !errors.As(err, new(*store.ConflictError)) {
					t.Errorf("writing %s: %v, want %v", name, err, want)
				}
			})
			synctest.Wait()
		}
		commit("first", nil)
		commit("second", nil)
		if n := len(h.transactions()); n != 2 {
			t.Fatalf("%d transactions are under way, want one of each writer", n)
		}
		for i := range 40 {
			commit(fmt.Sprint("n", i), nil)
		}
		commit("n0", &store.ConflictError{}) // which is in that batch already, and refused in the next
		if n := len(h.transactions()); n != 2 {
			t.Fatalf("%d transactions are under way while both writers are busy", n)
		}
		h.gate <- struct{}{} // the first is done
		synctest.Wait()
		sent := h.transactions()
		if len(sent) != 3 || len(sent[2]) != 40 {
			t.Errorf("what waited went in %d transactions", len(sent)-2)
		}
		for _, ops := range sent {
			keys := map[string]bool{}
			for _, op := range ops {
				if keys[op.Key] {
					t.Errorf("%s is twice in a transaction", op.Key)
				}
				keys[op.Key] = true
			}
		}
	})
}

func TestGroupsOfCallersThatHaveGoneAreNotSent(t *testing.T) {
	hold(t, func(t *testing.T, s *store.Store, h *held, writers *sync.WaitGroup) {
		for _, name := range []string{"first", "second"} { // both writers are busy
			writers.Go(func() { _, _ = s.Commit(context.Background(), write(s, configMap(name, "", 1), 0)) })
		}
		synctest.Wait()
		ctx, leave := context.WithCancel(context.Background())
		writers.Go(func() {
			if _, err := s.Commit(ctx, write(s, configMap("gone", "", 1), 0)); !errors.Is(err, context.Canceled) {
				t.Errorf("who has gone: %v", err)
			}
		})
		synctest.Wait()
		leave()
		writers.Go(func() {
			if _, err := s.Commit(context.Background(), write(s, configMap("here", "", 1), 0)); err != nil {
				t.Errorf("who is still there: %v", err)
			}
			if _, ok := s.Table(prefix).Get("gone"); ok {
				t.Error("the group of who has gone was sent")
			}
		})
		synctest.Wait()
	})
}
