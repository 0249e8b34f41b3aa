package registry

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

func TestTurnsAreTakenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts turns
		key := api.Key{Namespace: "default", Name: "a"}
		leave, err := ts.wait(t.Context(), api.ConfigMaps, key)
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				leave, err := ts.wait(t.Context(), api.ConfigMaps, key)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				leave()
			})
			synctest.Wait()
		}
		other, err := ts.wait(t.Context(), api.ConfigMaps, api.Key{Namespace: "default", Name: "b"})
		if err != nil {
			t.Fatalf("another object: %v", err)
		}
		other()
		leave()
		wg.Wait()
		for i, n := range order {
			if i != n {
				t.Errorf("turns in the order %v", order)
				break
			}
		}
		if len(ts.lines) != 0 {
			t.Errorf("%d lines are left", len(ts.lines))
		}
	})
}

func TestWhoLeavesTheLineHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts turns
		key := api.Key{Namespace: "default", Name: "a"}
		leave, err := ts.wait(t.Context(), api.ConfigMaps, key)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := ts.wait(ctx, api.ConfigMaps, key); !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err) {
				t.Errorf("who has gone: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Go(func() {
			leave, err := ts.wait(t.Context(), api.ConfigMaps, key)
			if err != nil {
				t.Error(err)
				return
			}
			leave()
		})
		synctest.Wait()
		leave()
		wg.Wait()
		if len(ts.lines) != 0 {
			t.Errorf("%d lines are left", len(ts.lines))
		}
	})
}

func TestBatchesThatOverlapDoNotWaitInACircle(t *testing.T) {
	var ts turns
	a, b, c := api.Key{Name: "a"}, api.Key{Name: "b"}, api.Key{Name: "c"}
	var inside atomic.Int32
	var wg sync.WaitGroup
	for _, keys := range [][]api.Key{{a, b, c}, {c, b, a}, {b, a, b}, {c, b}} {
		wg.Go(func() {
			for range 200 {
				leave, err := ts.waitAll(t.Context(), api.Nodes, keys)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > 1 { // each has b
					t.Errorf("%d have the same turn", n)
				}
				inside.Add(-1)
				leave()
			}
		})
	}
	wg.Wait()
}

// TestABulkWriteTakesTurnsWithWhomItMet: the first round waits for nobody; the next one for the turns of those, and only those, that met somebody.
func TestABulkWriteTakesTurnsWithWhomItMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Registry{}
		keys := []api.Key{{Namespace: "default", Name: "a"}, {Namespace: "default", Name: "b"}}
		leave, err := r.turns.wait(t.Context(), api.Pods, keys[0])
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		leaveB, err := r.turns.wait(t.Context(), api.Pods, keys[1])
		if err != nil {
			t.Fatal(err)
		}
		var rounds atomic.Int32
		var wg sync.WaitGroup
		wg.Go(func() {
			r.rounds(t.Context(), api.Pods, make([]Result, len(keys)), func(i int) api.Key { return keys[i] }, func(try int, todo []int) []int {
				rounds.Add(1)
				if try == 0 {
					return []int{1}
				}
				if len(todo) != 1 || todo[0] != 1 {
					t.Errorf("the second round is about %v", todo)
				}
				return nil
			})
		})
		synctest.Wait()
		if n := rounds.Load(); n != 1 {
			t.Errorf("%d rounds while somebody else has the turn", n)
		}
		leaveB()
		wg.Wait()
		if n := rounds.Load(); n != 2 {
			t.Errorf("%d rounds in all", n)
		}
	})
}
