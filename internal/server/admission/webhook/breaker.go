package webhook

import (
	"fmt"
	"sync"
	"time"
)

const (
	// opensAfter is how many failures in a row make a webhook be left alone for a while.
	opensAfter = 5
	// firstPause and lastPause bound for how long, between one attempt and the next.
	firstPause, lastPause = time.Second, 10 * time.Second
)

// breaker keeps writes from waiting, each for itself, for a webhook that does not answer: after some failures in a row one write at a time
// asks it, at intervals, and all others fail at once. What a failure means is for the failure policy of the webhook, as always.
//
// closed -(failures in a row)-> open -(pause over)-> one asks -(answer)-> closed, or -(failure)-> open, for longer
type breaker struct {
	mu       sync.Mutex
	failures int
	first    time.Time // of the failures
	last     error
	pause    time.Duration
	until    time.Time // nobody asks before; the zero time while closed
	asking   bool      // one write asks while the breaker is open
}

// admit returns why a webhook is not to be asked now, if it is not. Each nil is followed by a call of succeeded, failed or released.
func (b *breaker) admit(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return nil
	}
	if b.asking || now.Before(b.until) {
		return fmt.Errorf("it has failed %d times in a row since %s and is asked again within %s; the last time: %w",
			b.failures, b.first.UTC().Format(time.RFC3339), b.pause, b.last)
	}
	b.asking = true
	return nil
}

// open reports whether the webhook is left alone.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.until.IsZero()
}

// succeeded takes note of an answer, and reports whether it ended an outage.
func (b *breaker) succeeded() (recovered bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	recovered = !b.until.IsZero()
	b.failures, b.pause, b.until, b.last, b.asking = 0, 0, time.Time{}, nil, false
	return recovered
}

// failed takes note of a failure, and reports whether it began an outage.
func (b *breaker) failed(now time.Time, err error) (began bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == 0 {
		b.first = now
	}
	b.failures++
	b.last = err
	if b.failures < opensAfter {
		return false
	}
	began = b.until.IsZero()
	if began || b.asking {
		b.pause = min(max(2*b.pause, firstPause), lastPause)
		b.until = now.Add(b.pause)
	}
	b.asking = false
	return began
}

// released takes note of a call that said nothing about the webhook.
func (b *breaker) released() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asking = false
}
