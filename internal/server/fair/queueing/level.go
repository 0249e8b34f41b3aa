// Package queueing decides which request of a priority level is served next, and how the server's seats are divided between levels,
// as KEP-1040 describes it. It decides over data and a clock that is passed in: who waits for whom is the business of package fair.
//
// What flows through it: a [Request] that arrives at a [Level] is served at once, waits in a queue or is refused. Each flow - a user, a
// namespace - is dealt a hand of queues and uses the one with the least work in it, so that a flow with many requests fills a few queues
// and the others' are free (shuffle sharding). When a seat becomes free, the queue is served whose oldest request would be done first
// if all queues were served side by side at the same speed (fair queuing): each queue's progress is measured in seat-seconds, on the
// level's own clock, which runs as fast as one busy queue is entitled to seats. [Level.Finish] corrects what was assumed about a
// request's time by what it took.
//
// Queues exist while they are busy: a level may be configured with millions of them.
//
// What must stay true: a level never serves more seats than it has, except one request that is wider than all of them, alone; a free
// seat is never kept from a request that fits, unless a wider one's turn has come; queues that are busy get the same. Tests:
// TestSeatsAreNeverOverdrawn, TestQueuesGetTheSame, TestWideRequestsAreServed.
package queueing

import (
	"time"
)

// assumed is how long a request is assumed to take until it is known.
const assumed = 3 * time.Millisecond

// Config is how a level treats requests that find no seat.
type Config struct {
	// Exempt levels serve everything at once.
	Exempt bool
	// Queues is how many queues requests wait in; 0 refuses those that find no seat.
	Queues int
	// Hand is how many queues a flow may use, Length how many requests may wait in each.
	Hand, Length int
}

// Verdict is what becomes of a request that arrives.
type Verdict int

// Verdicts.
const (
	Served  Verdict = iota // it has its seats
	Waiting                // it is in a queue
	NoSeat                 // refused: the level has no queues
	Full                   // refused: so is its queue
)

// Request is one request at a level.
type Request struct {
	// Seats is how many it takes.
	Seats int
	// Granted is the caller's way to hear that the request's turn has come.
	Granted chan struct{}
	// Arrived and Started are when it came and when it got its seats.
	Arrived, Started time.Duration

	queue      *queue // nil where there are no queues
	prev, next *Request
	arrived    float64 // on the level's own clock
	state      state
}

type state int

const (
	outside state = iota
	waiting
	served
)

// Behind is how many requests wait in the queue of one that waits, besides itself.
func (r *Request) Behind() int { return r.queue.waiting - 1 }

func (r *Request) work() float64 { return float64(r.Seats) * assumed.Seconds() }

// Level is a priority level. It belongs to one goroutine at a time.
type Level struct {
	config Config
	seats  int // how many may be in use

	progress float64       // the level's own clock: seat-seconds that each busy queue has been entitled to
	at       time.Duration // when progress was brought up to date

	queues  map[int]*queue // those with requests
	backlog []*queue       // those with requests that wait
	spare   []*queue
	last    int    // index of the queue that was served last
	arrived uint64 // requests that were put into queues, ever

	Stats
	queuedSeats int // in use by requests from queues, or waited for
	demand      integral
	granted     []*Request
}

// Stats are what a level holds at present, and what became of its requests.
type Stats struct {
	Executing, Waiting       int
	SeatsInUse, SeatsWaiting int
	Dispatched, Rejected     int
	Left                     int // gave up waiting
	Blocked                  int // times that the request whose turn it was found too few seats
}

// NewLevel returns a level with a number of seats.
func NewLevel(c Config, seats int, now time.Duration) *Level {
	return &Level{config: c, seats: seats, at: now, queues: map[int]*queue{}, demand: integral{at: now}, last: -1}
}

// Configure changes how requests that come from now on are treated. Those that wait stay where they are.
func (l *Level) Configure(c Config) { l.config = c }

// Config is how requests are treated.
func (l *Level) Config() Config { return l.config }

// SetSeats changes how many seats there are, and returns the requests that are served for it.
func (l *Level) SetSeats(n int, now time.Duration) []*Request {
	l.advance(now)
	l.seats = n
	return l.dispatch(now)
}

// Seats is how many seats there are.
func (l *Level) Seats() int { return l.seats }

// Progress is the level's own clock, in seat-seconds.
func (l *Level) Progress() float64 { return l.progress }

// Idle reports whether nobody is served and nobody waits.
func (l *Level) Idle() bool { return l.Executing == 0 && l.Waiting == 0 }

// Busy is how many queues have requests that wait.
func (l *Level) Busy() int { return len(l.backlog) }

// Arrive takes a request in. hash stands for the request's flow. Where others get seats by it they are returned.
func (l *Level) Arrive(r *Request, hash uint64, now time.Duration) (Verdict, []*Request) {
	l.advance(now)
	r.Arrived = now
	if l.config.Exempt || l.config.Queues == 0 {
		if !l.config.Exempt && !l.fits(r.Seats) {
			l.Rejected++
			return NoSeat, nil
		}
		l.serve(r, now)
		return Served, nil
	}
	q := l.choose(hash)
	if l.SeatsInUse >= l.seats && q.waiting >= l.config.Length {
		l.Rejected++
		l.settle(q)
		return Full, nil
	}
	if q.idle() {
		q.due = l.progress
	}
	r.arrived = l.progress
	l.enqueue(q, r)
	granted := l.dispatch(now)
	if r.state == served {
		return Served, granted
	}
	return Waiting, granted
}

// Finish gives back the seats of a request that has been served, and returns the requests that get them.
func (l *Level) Finish(r *Request, now time.Duration) []*Request {
	l.advance(now)
	l.Executing--
	l.SeatsInUse -= r.Seats
	r.state = outside
	if q := r.queue; q != nil {
		l.queuedSeats -= r.Seats
		q.executing--
		q.seats -= r.Seats
		q.due -= float64(r.Seats) * (assumed - (now - r.Started)).Seconds()
		l.settle(q)
	}
	l.note()
	return l.dispatch(now)
}

// Leave takes a request out that no longer waits for its turn, and reports whether it was still waiting. Where others get seats by it
// they are returned.
func (l *Level) Leave(r *Request, now time.Duration) (bool, []*Request) {
	if r.state != waiting {
		return false, nil
	}
	l.advance(now)
	l.dequeue(r)
	r.state = outside
	l.queuedSeats -= r.Seats
	l.Left++
	l.Rejected++
	l.settle(r.queue)
	l.note()
	return true, l.dispatch(now)
}

// advance brings the level's clock up to date. It must come before anything changes.
func (l *Level) advance(now time.Duration) {
	if n := len(l.queues); n > 0 {
		l.progress += float64(min(l.queuedSeats, l.seats)) / float64(n) * (now - l.at).Seconds()
	} else {
		l.progress = 0 // nobody remembers a time
	}
	l.at = now
	l.demand.advance(now)
}

// note records how many seats could be used.
func (l *Level) note() { l.demand.set(float64(l.SeatsInUse + l.SeatsWaiting)) }

// fits reports whether a request of a width can be served now.
func (l *Level) fits(seats int) bool {
	if seats > l.seats {
		return l.Executing == 0 && l.seats > 0
	}
	return l.SeatsInUse+seats <= l.seats
}

// serve gives a request its seats.
func (l *Level) serve(r *Request, now time.Duration) {
	r.Started, r.state = now, served
	l.Executing++
	l.SeatsInUse += r.Seats
	l.Dispatched++
	l.note()
}
