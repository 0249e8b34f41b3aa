// Package fair shares the server between those who ask it, as FlowSchemas and PriorityLevelConfigurations say (KEP-1040,
// https://kubernetes.io/docs/concepts/cluster-administration/flow-control/).
//
// What flows through it: a request is classified (match.go): the first FlowSchema that matches names its priority level, and its user or
// namespace its flow. [Fairness.Enter] takes as many seats of the level as the request is wide (width.go), waits in one of the level's
// queues for them, or refuses; what is decided there is package queueing's. The objects are read when they have changed (arrange.go),
// by whoever asks next: there is no goroutine. Every ten seconds levels lend and borrow seats by what they could have used.
//
// What must stay true: a request that finds a free seat is not kept waiting; a level that nobody's requests belong to any longer serves
// those that wait; a seat is given back once. Tests: TestQuietUserIsServed, TestHeartbeatsAreServed, TestSchemaChangesWhileRequestsWait,
// TestWaitEnds (package fair).
package fair

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/server/fair/queueing"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/store"
)

const (
	// adjustEvery is how often levels lend and borrow.
	adjustEvery = 10 * time.Second
	// waitWithout is how long requests wait that have no deadline: those that begin a watch.
	waitWithout = 15 * time.Second
	// waitAtMost bounds the wait of those that have one. They wait for a quarter of the time that is left.
	waitAtMost = time.Minute
)

// Config is what Fairness works with.
type Config struct {
	// Seats is how many requests of width 1 are served at a time, not counting exempt ones.
	Seats int
	// Schemas and Levels are the tables of FlowSchemas and PriorityLevelConfigurations; without them only the mandatory ones exist.
	Schemas, Levels *store.Table
	// Metrics is where the figures are registered; nil leaves them out.
	Metrics prometheus.Registerer
}

// Fairness shares the server.
type Fairness struct {
	cfg     Config
	began   time.Time
	seed    maphash.Seed // strangers cannot choose names that share a queue
	metrics *metrics

	arranged atomic.Pointer[arrangement]
	adjustAt atomic.Int64 // when levels lend and borrow next, as a time.Duration since began

	mu       sync.Mutex // of what follows, and of making arrangements; taken before a level's
	levels   map[string]*level
	pairs    map[pair]*figures
	fraction float64 // see queueing.Allocate
}

// New returns a Fairness.
func New(cfg Config) *Fairness {
	f := &Fairness{cfg: cfg, began: time.Now(), seed: maphash.MakeSeed(), metrics: newMetrics(), levels: map[string]*level{}, pairs: map[pair]*figures{}}
	f.arrange()
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(f.metrics, gauges{f})
	}
	return f
}

func (f *Fairness) now() time.Duration { return time.Since(f.began) }

// Place is where a request belongs.
type Place struct {
	schema *schema
	flow   string
}

// None reports whether it is none.
func (p Place) None() bool { return p.schema == nil }

// SchemaUID is the UID of the FlowSchema as the value of a header, nil while it does not exist.
func (p Place) SchemaUID() []string { return p.schema.uid }

// LevelUID is the UID of the PriorityLevelConfiguration as the value of a header, nil while it does not exist.
func (p Place) LevelUID() []string { return p.schema.levelUID }

// MaxWidth is how many seats a request may take there.
func (p Place) MaxWidth() int { return int(p.schema.level.width.Load()) }

// Classify finds the place of a request.
func (f *Fairness) Classify(of *request.Info) Place {
	a := f.current()
	for _, s := range a.schemas {
		if s.matches(of) {
			return Place{s, s.flowOf(of)}
		}
	}
	return Place{a.rest, a.rest.flowOf(of)} // who is neither authenticated nor anonymous
}

// Rejection is the error of a request that is not served.
type Rejection struct {
	// RetryAfter is how long, in seconds, the client should wait before it tries again.
	RetryAfter int
	Reason     string // as the metrics name it
}

func (r *Rejection) Error() string { return fmt.Sprintf("no seat (%s)", r.Reason) }

// Stay is a request that has seats.
type Stay struct {
	queueing.Request
	f     *Fairness
	place Place
	lasts bool // it is the beginning of a watch
	over  atomic.Bool
}

// Enter takes seats for a request, waiting for them as long as ctx lets it. It returns a [Rejection] if there are none.
func (f *Fairness) Enter(ctx context.Context, p Place, seats int, watch bool) (*Stay, error) {
	s := &Stay{f: f, place: p, lasts: watch}
	s.Seats = seats
	l, m := p.schema.level, p.schema.figures
	m.width().Observe(float64(seats))
	l.mu.Lock()
	verdict, granted := l.queue.Arrive(&s.Request, maphash.String(f.seed, p.flow)^p.schema.salt, f.now())
	grant(granted)
	if verdict == queueing.Waiting {
		s.Granted = make(chan struct{})
		m.waiting.Add(1)
		m.waitingSeats.Add(int64(seats))
		m.length().Observe(float64(s.Behind() + 1))
	}
	l.mu.Unlock()
	switch verdict {
	case queueing.NoSeat:
		return nil, f.refuse(p, "concurrency-limit", 0)
	case queueing.Full:
		return nil, f.refuse(p, "queue-full", 0)
	case queueing.Waiting:
		if err := f.wait(ctx, s); err != nil {
			return nil, err
		}
	}
	m.dispatched().Inc()
	if !l.exempt {
		m.served().Observe((s.Started - s.Arrived).Seconds())
	}
	m.executing.Add(1)
	m.executingSeats.Add(int64(seats))
	return s, nil
}

// Leave gives the seats back, and reports whether the request still had them.
func (s *Stay) Leave() bool {
	if s.over.Swap(true) {
		return false
	}
	l, m, now := s.place.schema.level, s.place.schema.figures, s.f.now()
	l.mu.Lock()
	grant(l.queue.Finish(&s.Request, now))
	l.mu.Unlock()
	m.executing.Add(-1)
	m.executingSeats.Add(-int64(s.Seats))
	executed := m.regular
	if s.lasts {
		executed = m.watch
	}
	executed().Observe((now - s.Started).Seconds())
	return true
}

// grant wakes those who have got seats. Who got them on arrival does not wait.
func grant(to []*queueing.Request) {
	for _, r := range to {
		if r.Granted != nil {
			close(r.Granted)
		}
	}
}

// wait returns when the request has its seats, or has waited long enough.
func (f *Fairness) wait(ctx context.Context, s *Stay) error {
	m := s.place.schema.figures
	defer m.waiting.Add(-1)
	defer m.waitingSeats.Add(-int64(s.Seats))
	enough := time.NewTimer(patience(ctx))
	defer enough.Stop()
	adjust := time.NewTimer(0)
	defer adjust.Stop()
	for {
		adjust.Reset(max(time.Duration(f.adjustAt.Load())-f.now(), time.Second))
		select {
		case <-s.Granted:
			return nil
		case <-adjust.C:
			f.current() // nobody else may come by
			continue
		case <-enough.C:
		case <-ctx.Done():
		}
		l := s.place.schema.level
		l.mu.Lock()
		left, granted := l.queue.Leave(&s.Request, f.now())
		grant(granted)
		l.mu.Unlock()
		if !left { // it got its seats in this moment
			return nil
		}
		return f.refuse(s.place, "time-out", f.now()-s.Arrived)
	}
}

// patience is how long a request waits for its turn.
func patience(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(time.Until(deadline)/4, waitAtMost)
	}
	return waitWithout
}

// refuse counts a request that is not served.
func (f *Fairness) refuse(p Place, reason string, waited time.Duration) error {
	l, m := p.schema.level, p.schema.figures
	m.rejected(reason).Inc()
	m.refused().Observe(waited.Seconds())
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Rejection{RetryAfter: l.refusals.add(int64(f.now() / time.Second)), Reason: reason}
}
