// Package pace lets controllers write bursts of changes together: the first change of an object is handled at once, the next ones
// after a short time.
//
// What flows through it: keys of what was written, and the question how long the next write has to wait, which a Reconcile passes
// on as its "after". What must stay true: it is a memory of convenience; forgetting costs one write and nothing else.
// Tests: TestPace.
package pace

import (
	"sync"
	"time"

	"github.com/knarr-io/knarr/internal/api"
)

// Pace remembers when each object was last written.
type Pace struct {
	every time.Duration
	mu    sync.Mutex
	last  map[api.Key]time.Time
}

// New returns a Pace with at least every between two writes of one object.
func New(every time.Duration) *Pace {
	return &Pace{every: every, last: map[api.Key]time.Time{}}
}

// Wait returns how long key has to wait at now; 0 lets it go on.
func (p *Pace) Wait(key api.Key, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, ok := p.last[key]
	if !ok {
		return 0
	}
	return max(last.Add(p.every).Sub(now), 0)
}

// Wrote notes that key was written at now.
func (p *Pace) Wrote(key api.Key, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[key] = now
}

// Forget drops what is known of key, whose object is gone.
func (p *Pace) Forget(key api.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, key)
}
