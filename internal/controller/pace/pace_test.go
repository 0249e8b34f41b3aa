package pace

import (
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/api"
)

func TestPace(t *testing.T) {
	p := New(time.Second)
	a, b := api.Key{Name: "a"}, api.Key{Name: "b"}
	t0 := time.Unix(100, 0)
	check := func(what string, key api.Key, at time.Duration, want time.Duration) {
		t.Helper()
		if got := p.Wait(key, t0.Add(at)); got != want {
			t.Errorf("%s: wait %v, want %v", what, got, want)
		}
	}
	check("first write", a, 0, 0)
	p.Wrote(a, t0)
	check("soon after", a, 300*time.Millisecond, 700*time.Millisecond)
	check("another object", b, 300*time.Millisecond, 0)
	check("late enough", a, time.Second, 0)
	check("long after", a, time.Hour, 0)
	p.Forget(a)
	check("forgotten", a, 300*time.Millisecond, 0)
}
