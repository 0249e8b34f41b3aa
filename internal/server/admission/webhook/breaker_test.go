package webhook

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestBreakerOverTime: after some failures in a row one write asks at a time, at intervals that grow to a bound; an answer closes it.
func TestBreakerOverTime(t *testing.T) {
	now := time.Unix(1000, 0)
	b, dead := &breaker{}, errors.New("dead")
	for i := range opensAfter {
		if err := b.admit(now); err != nil {
			t.Fatal(err)
		}
		if began := b.failed(now, dead); began != (i == opensAfter-1) || b.open() != began {
			t.Errorf("failure %d: began %v", i, began)
		}
	}
	for _, pause := range []time.Duration{1, 2, 4, 8, 10, 10} {
		pause *= time.Second
		if err := b.admit(now.Add(pause - 1)); !errors.Is(err, dead) || !strings.Contains(err.Error(), "in a row since 1970-01-01T00:16:40Z") {
			t.Errorf("asked %s too early: %v", pause, err)
		}
		now = now.Add(pause)
		if err := b.admit(now); err != nil {
			t.Errorf("not asked after %s: %v", pause, err)
		}
		if b.admit(now) == nil {
			t.Error("two ask at once")
		}
		if b.failed(now, dead) {
			t.Error("the same outage began twice")
		}
	}
	now = now.Add(lastPause)
	if err := b.admit(now); err != nil {
		t.Fatal(err)
	}
	b.released()
	if err := b.admit(now); err != nil {
		t.Errorf("who was cut off keeps others away: %v", err)
	}
	if !b.succeeded() || b.open() || b.succeeded() || b.admit(now) != nil {
		t.Error("an answer does not end the outage, once")
	}
}

// TestShare: who is passed over may take its part of what is left; who is not may take all that it says.
func TestShare(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		said, left time.Duration
		ignore     bool
		after      int
		want       time.Duration
	}{
		{10 * s, 34 * s, true, 0, 10 * s}, {10 * s, 34 * s, true, 1, 10 * s}, {10 * s, 34 * s, true, 3, 8 * s}, {30 * s, 34 * s, true, 0, 30 * s},
		{10 * s, 34 * s, false, 9, 10 * s}, {30 * s, 5 * s, false, 0, 5 * s}, {10 * s, s, true, 0, s}, {0, 34 * s, false, 0, 34 * s}, {10 * s, -s, false, 0, 0},
	} {
		if got := share(tc.said, tc.left, tc.ignore, tc.after); got != tc.want {
			t.Errorf("%v: %s", tc, got)
		}
	}
}
