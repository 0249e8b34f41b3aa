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
