package call

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns()
		var mu sync.Mutex
		working, most := 0, 0
		work := func(by int) {
			mu.Lock()
			defer mu.Unlock()
			working += by
			most = max(most, working)
		}
		var wg sync.WaitGroup
		for range 3 * cap(turns) {
			wg.Go(func() {
				c := &Call{}
				defer c.InTurns(turns)()
				for range 5 {
					work(1)
					time.Sleep(time.Millisecond)
					work(-1)
					c.GiveWay()
				}
			})
		}
		wg.Wait()
		if most > runtime.GOMAXPROCS(0) || most == 0 {
			t.Errorf("%d worked at a time, of %d processors", most, runtime.GOMAXPROCS(0))
		}
		if len(turns) != 0 {
			t.Errorf("%d turns are held at the end", len(turns))
		}
	})
}

// TestATurnPassesOn: clients that do not read keep nobody from being answered.
func TestATurnPassesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns()
		stuck := make(chan struct{})
		var wg sync.WaitGroup
		for range cap(turns) {
			wg.Go(func() {
				c := &Call{}
				defer c.InTurns(turns)()
				_, _ = considerate{blocked(stuck), c}.Write([]byte("a piece"))
			})
		}
		synctest.Wait()
		began := time.Now()
		c := &Call{}
		done := c.InTurns(turns)
		if waited := time.Since(began); waited > longestTurn {
			t.Errorf("waited %v for those that wait for their clients", waited)
		}
		var out bytes.Buffer
		if n, err := (considerate{&out, c}).Write([]byte("a piece")); n != 7 || err != nil || out.String() != "a piece" {
			t.Errorf("wrote %d of %q, %v", n, out.String(), err)
		}
		done()
		close(stuck)
		wg.Wait()
		if time.Sleep(2 * longestTurn); len(turns) != 0 {
			t.Errorf("%d turns are held at the end", len(turns))
		}
	})
}

type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) {
	<-b
	return len(p), nil
}
