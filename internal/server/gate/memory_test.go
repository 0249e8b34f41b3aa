package gate

import (
	"fmt"
	"testing"
)

// TestShare: one user gets no more than half, and however many come after, each finds something.
func TestShare(t *testing.T) {
	s := newShare(200)
	got := map[string]int{}
	for u := range 8 {
		who := fmt.Sprint("user", u)
		for s.take(who, 1) {
			got[who]++
		}
		if got[who] == 0 {
			t.Fatalf("%s finds nothing after %v", who, got)
		}
	}
	if got["user0"] != 100 || got["user1"] != 50 {
		t.Errorf("shares %v, want 100, 50, ...", got)
	}
	for who, n := range got {
		s.give(who, n)
	}
	if s.taken() != 0 || len(s.held) != 0 {
		t.Errorf("%d left of %v", s.taken(), s.held)
	}
	one := newShare(1)
	if !one.take("a", 1) || one.take("b", 1) {
		t.Error("the only slot is for one")
	}
	if s := newShare(100); s.take("a", 51) || !s.take("a", 50) {
		t.Error("a half at once is what one user may have")
	}
}
