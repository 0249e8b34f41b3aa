package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/knarr-io/knarr/internal/store"
)

// faulty is a store's backend that fails as told, and counts what is written.
type faulty struct {
	store.Backend
	seed uint64

	mu     sync.Mutex
	rand   *rand.Rand
	rates  rates
	writes map[string]int // operations by prefix, "leases" for /registry/leases/...
	broken int            // faults so far
}

// rates say how likely faults are, for each transaction or batch of changes.
type rates struct {
	refuse  float64 // a transaction fails and nothing is written
	unknown float64 // a transaction is written, but the answer is lost
	lose    float64 // the stream of changes breaks
	latency time.Duration
}

func newFaulty(b store.Backend, seed uint64) *faulty {
	return &faulty{Backend: b, seed: seed, rand: rand.New(rand.NewPCG(seed, 0)), writes: map[string]int{}}
}

// fail sets the rates of faults from now on.
func (f *faulty) fail(r rates) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rates = r
}

// faults returns how many faults there were.
func (f *faulty) faults() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

// counted returns how many operations there were since the call before, by prefix.
func (f *faulty) counted() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.writes
	f.writes = map[string]int{}
	return out
}

// chance reports whether something of probability p happens now. f.mu must be held.
func (f *faulty) chance(p float64) bool {
	if p == 0 || f.rand.Float64() >= p {
		return false
	}
	f.broken++
	return true
}

var errInjected = errors.New("injected: the store is not available")

func (f *faulty) Commit(ctx context.Context, ops []store.Op) (int64, error) {
	f.mu.Lock()
	for _, op := range ops {
		kind, _, _ := strings.Cut(strings.TrimPrefix(op.Key, "/registry/"), "/")
		f.writes[kind]++
	}
	refuse, unknown := f.chance(f.rates.refuse), f.chance(f.rates.unknown)
	var wait time.Duration
	if f.rates.latency > 0 {
		wait = time.Duration(f.rand.Int64N(int64(f.rates.latency)))
	}
	f.mu.Unlock()
	if wait > 0 {
		time.Sleep(wait) // virtual
	}
	if refuse {
		return 0, errInjected
	}
	rev, err := f.Backend.Commit(ctx, ops)
	if unknown && err == nil {
		return 0, errInjected
	}
	return rev, err
}

// Watch breaks now and then. It says ErrTooOld, which makes the store load everything anew: Mem keeps its history for one reader that
// never fails.
func (f *faulty) Watch(ctx context.Context, prefix string, from int64, apply func(int64, []store.Change)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := false
	err := f.Backend.Watch(ctx, prefix, from, func(rev int64, changes []store.Change) {
		f.mu.Lock()
		if !lost && f.chance(f.rates.lose) {
			lost = true
			cancel()
		}
		f.mu.Unlock()
		if !lost {
			apply(rev, changes)
		}
	})
	if lost {
		return store.ErrTooOld
	}
	return err
}
