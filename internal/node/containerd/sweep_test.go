package containerd

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/pkg/gc"
)

// collections counts how often a collector was called.
type collections struct{ n atomic.Int32 }

func (c *collections) ScheduleAndWait(context.Context) (gc.Stats, error) { c.n.Add(1); return nil, nil }

func TestSweepsOnceRemovalsHaveComeToRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c collections
		s := newSweeper(t.Context(), &c, 15*time.Second)
		defer s.Close()
		want := func(n int32) {
			t.Helper()
			synctest.Wait()
			if got := c.n.Load(); got != n {
				t.Errorf("%d collections, want %d", got, n)
			}
		}
		time.Sleep(16 * time.Second)
		want(1) // what an earlier process may have left
		for range 10 {
			s.mutated(true)
			time.Sleep(10 * time.Second)
		}
		want(1)
		time.Sleep(10 * time.Second)
		want(2)
		s.mutated(false)
		time.Sleep(time.Minute)
		want(2)
	})
}
