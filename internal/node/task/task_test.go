package task

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestNothingStartsAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		if g.Go(func() { t.Error("run before the group was open") }) {
			t.Error("Go says that it started something before Open")
		}
		ctx, cancel := context.WithCancel(context.Background())
		g.Open(ctx)
		ended := false
		if !g.Go(func() { <-ctx.Done(); time.Sleep(time.Second); ended = true }) {
			t.Fatal("Go started nothing in an open group")
		}
		cancel()
		g.Close()
		if g.Go(func() { t.Error("run after the end") }) {
			t.Error("Go says that it started something after Close")
		}
		g.Wait()
		if !ended || !g.Ended() {
			t.Error("Wait returned before the goroutine had ended")
		}
	})
}

func TestSteadyOutlivesThePodAndEndsAfterTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		agent, end := context.WithCancel(context.Background())
		g.Open(agent)
		pod, endPod := context.WithCancel(agent)
		call, cancel := g.Steady(pod)
		defer cancel()
		endPod()
		synctest.Wait()
		if call.Err() != nil {
			t.Error("the end of the pod cut the call off")
		}
		end()
		time.Sleep(steadyAfterEnd - time.Second)
		if call.Err() != nil {
			t.Error("the call was cut off with the agent, not a little later")
		}
		time.Sleep(2 * time.Second)
		if call.Err() == nil {
			t.Error("the call outlives the agent")
		}
	})
}

func TestSteadyHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		g.Open(t.Context())
		call, cancel := g.Steady(t.Context())
		defer cancel()
		time.Sleep(steadyTimeout + time.Second)
		if !errors.Is(call.Err(), context.DeadlineExceeded) {
			t.Errorf("after %s: %v", steadyTimeout, call.Err())
		}
	})
}

func TestRetryDoublesToFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Retry
		wait := func() time.Duration { began := time.Now(); r.Wait(t.Context()); return time.Since(began) }
		for _, want := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
			if got := wait(); got != want {
				t.Errorf("waited %s, want %s", got, want)
			}
		}
		for range 6 {
			wait()
		}
		if got := wait(); got != 5*time.Second {
			t.Errorf("waited %s, want the most, 5s", got)
		}
		r.Reset()
		if got := wait(); got != 100*time.Millisecond {
			t.Errorf("waited %s after Reset", got)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		r.Wait(ended)
		if time.Since(began) != 0 {
			t.Error("waited after the end")
		}
	})
}

func TestQuietDropsErrorsOfTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := errors.New("away")
	if Quiet(ctx, err) != err || Quiet(ctx, nil) != nil {
		t.Error("an error of the agent's life was dropped")
	}
	cancel()
	if Quiet(ctx, err) != nil {
		t.Error("an error of the end was kept")
	}
}
