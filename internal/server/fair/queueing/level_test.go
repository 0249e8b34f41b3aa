package queueing

import (
	"math/rand/v2"
	"testing"
	"time"
)

const ms = time.Millisecond

// world drives a level through virtual time: requests of flows that take a time each.
type world struct {
	t     *testing.T
	level *Level
	now   time.Duration
	ends  map[*Request]time.Duration // of those that are served
	takes map[*Request]time.Duration
	flow  map[*Request]uint64
	done  map[uint64]int
}

func newWorld(t *testing.T, c Config, seats int) *world {
	return &world{t: t, level: NewLevel(c, seats, 0), ends: map[*Request]time.Duration{}, takes: map[*Request]time.Duration{}, flow: map[*Request]uint64{}, done: map[uint64]int{}}
}

func (w *world) arrive(flow uint64, seats int, takes time.Duration) (*Request, Verdict) {
	r := &Request{Seats: seats}
	w.takes[r], w.flow[r] = takes, flow
	v, granted := w.level.Arrive(r, flow, w.now)
	if v == Served && r.queue == nil {
		w.ends[r] = w.now + takes
	}
	w.begin(granted)
	return r, v
}

func (w *world) begin(granted []*Request) {
	for _, r := range granted {
		w.ends[r] = w.now + w.takes[r]
	}
	w.check()
}

// check looks at what must be true at any time.
func (w *world) check() {
	w.t.Helper()
	in, widest := 0, 0
	for r := range w.ends {
		in += r.Seats
		widest = max(widest, r.Seats)
	}
	if in != w.level.SeatsInUse || len(w.ends) != w.level.Executing {
		w.t.Fatalf("%d requests on %d seats, the level says %+v", len(w.ends), in, w.level.Stats)
	}
	if !w.level.config.Exempt && in > w.level.seats && (len(w.ends) > 1 || widest <= w.level.seats) {
		w.t.Fatalf("%d seats of %d are in use, by %d requests", in, w.level.seats, len(w.ends))
	}
}

// until passes time, and finishes what ends.
func (w *world) until(t time.Duration) {
	for {
		var next *Request
		for r, end := range w.ends {
			if end <= t && (next == nil || end < w.ends[next]) {
				next = r
			}
		}
		if next == nil {
			break
		}
		w.now = w.ends[next]
		delete(w.ends, next)
		w.done[w.flow[next]]++
		w.begin(w.level.Finish(next, w.now))
	}
	w.now = t
}

// one is a level where each flow has a queue of its own: flow n has queue n.
func one(queues, length int) Config { return Config{Queues: queues, Hand: 1, Length: length} }

// TestQueuesGetTheSame: a flow with a hundred times the requests gets no more than its part.
func TestQueuesGetTheSame(t *testing.T) {
	w := newWorld(t, one(4, 10_000), 10)
	for range 3000 {
		w.arrive(0, 1, 10*ms)
	}
	for range 1000 { // 10 seats for a second
		w.arrive(1, 1, 10*ms)
		w.until(w.now + ms)
	}
	if w.done[0] < 450 || w.done[0] > 550 || w.done[1] < 450 {
		t.Errorf("served %v", w.done)
	}
}

// TestQuietFlowDoesNotWait: who asks for less than its part is served at once, whatever the others want.
func TestQuietFlowDoesNotWait(t *testing.T) {
	w := newWorld(t, one(4, 10_000), 10)
	for range 5000 {
		w.arrive(0, 1, 10*ms)
	}
	var longest time.Duration
	for i := range 100 {
		w.until(time.Duration(i+1) * 20 * ms)
		r, v := w.arrive(1, 1, 5*ms)
		if came := w.now; v == Waiting {
			w.until(w.now + 10*ms)
			if r.Started == 0 {
				t.Fatalf("request %d still waits", i)
			}
			longest = max(longest, r.Started-came)
		}
	}
	if longest > 10*ms { // as long as one request takes
		t.Errorf("one waited for %s", longest)
	}
}

// TestCostIsWhatItTook: flows whose requests take longer than was assumed get fewer of them, not more of the seats.
func TestCostIsWhatItTook(t *testing.T) {
	w := newWorld(t, one(4, 100_000), 10)
	for range 20_000 {
		w.arrive(0, 1, 100*ms)
		w.arrive(1, 1, 10*ms)
	}
	w.until(10 * time.Second)
	slow, fast := float64(w.done[0])*0.1, float64(w.done[1])*0.01
	if part := slow / (slow + fast); part < 0.45 || part > 0.55 {
		t.Errorf("served %v: the slow flow had %.2f of the seats", w.done, part)
	}
}

// TestWideRequestsAreServed: a wide request's turn comes although narrow ones would fit all the time; one that is wider than the level
// is served alone.
func TestWideRequestsAreServed(t *testing.T) {
	w := newWorld(t, one(4, 10_000), 10)
	for range 2000 {
		w.arrive(0, 1, 10*ms)
	}
	wide, _ := w.arrive(1, 8, 10*ms)
	wider, _ := w.arrive(2, 40, 10*ms)
	w.until(500 * ms)
	if wide.Started == 0 || wider.Started == 0 {
		t.Errorf("begun at %s and %s", wide.Started, wider.Started)
	}
	if w.level.Blocked == 0 {
		t.Error("nothing waited for seats")
	}
}

// TestFloodOfWideRequests: a flood of expensive lists does not starve small gets.
func TestFloodOfWideRequests(t *testing.T) {
	w := newWorld(t, one(4, 10_000), 10)
	for range 1000 {
		w.arrive(0, 5, 50*ms)
	}
	for range 400 {
		w.arrive(1, 1, 5*ms)
		w.until(w.now + 5*ms)
	}
	w.until(w.now + 100*ms)
	if w.done[1] < 399 {
		t.Errorf("served %v", w.done)
	}
}

// TestSeatsAreNeverOverdrawn: whatever comes, waits and goes, the seats are enough and the counts are true (world.check).
func TestSeatsAreNeverOverdrawn(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := Config{Queues: rnd.IntN(8), Hand: 1 + rnd.IntN(3), Length: 1 + rnd.IntN(5)}
		w := newWorld(t, c, 1+rnd.IntN(6))
		var all []*Request
		refused := 0
		for range 3000 {
			switch rnd.IntN(10) {
			default:
				r, v := w.arrive(rnd.Uint64(), 1+rnd.IntN(4), time.Duration(rnd.IntN(20))*ms)
				if v == Waiting {
					all = append(all, r)
				}
				if v == Full || v == NoSeat {
					refused++
				}
			case 5, 6, 7:
				w.until(w.now + time.Duration(rnd.IntN(15))*ms)
			case 8:
				if len(all) > 0 {
					_, granted := w.level.Leave(all[rnd.IntN(len(all))], w.now)
					w.begin(granted)
				}
			case 9:
				if rnd.IntN(10) == 0 {
					c.Queues = rnd.IntN(8)
					w.level.Configure(c)
				}
				w.until(w.now + time.Second) // what is in use ends before there may be fewer seats
				if w.level.Executing == 0 {
					w.begin(w.level.SetSeats(1+rnd.IntN(6), w.now))
				}
			}
		}
		w.until(w.now + time.Hour)
		if !w.level.Idle() || w.level.SeatsInUse != 0 || w.level.SeatsWaiting != 0 || w.level.queuedSeats != 0 || len(w.level.queues) != 0 || len(w.level.backlog) != 0 {
			t.Fatalf("seed %d: at the end %+v, %d queues", seed, w.level.Stats, len(w.level.queues))
		}
		if w.level.Rejected != refused+w.level.Left {
			t.Errorf("seed %d: %d refused, %+v", seed, refused, w.level.Stats)
		}
	}
}

// TestLimitsOfQueues: a queue that is full refuses, unless there are seats; a level without queues refuses at once; an exempt one never.
func TestLimitsOfQueues(t *testing.T) {
	w := newWorld(t, one(2, 3), 1)
	for i, want := range []Verdict{Served, Waiting, Waiting, Waiting, Full} {
		if _, v := w.arrive(0, 1, ms); v != want {
			t.Errorf("request %d: %v, want %v", i, v, want)
		}
	}
	w = newWorld(t, Config{}, 2)
	for i, want := range []Verdict{Served, NoSeat, Served} {
		if i == 1 {
			if _, v := w.arrive(0, 2, ms); v != want {
				t.Errorf("two seats where one is free: %v", v)
			}
			continue
		}
		if _, v := w.arrive(0, 1, ms); v != want {
			t.Errorf("request %d: %v", i, v)
		}
	}
	w = newWorld(t, Config{Exempt: true}, 0)
	for range 100 {
		if _, v := w.arrive(0, 3, ms); v != Served {
			t.Fatalf("an exempt request: %v", v)
		}
	}
}

// TestLeave: who leaves a queue makes room for those behind, and cannot leave again or once served.
func TestLeave(t *testing.T) {
	w := newWorld(t, one(2, 10), 2)
	first, _ := w.arrive(0, 1, 10*ms)
	wide, _ := w.arrive(0, 2, 10*ms)
	behind, v := w.arrive(0, 1, 10*ms)
	if v != Waiting {
		t.Fatalf("behind a wide one: %v", v)
	}
	left, granted := w.level.Leave(wide, w.now)
	if !left || len(granted) != 1 || granted[0] != behind {
		t.Errorf("left %v, for %v", left, granted)
	}
	w.begin(granted)
	for _, r := range []*Request{wide, first} {
		if left, _ := w.level.Leave(r, w.now); left {
			t.Error("left twice")
		}
	}
}

// TestDeal: hands are of different cards, and each card is dealt as often.
func TestDeal(t *testing.T) {
	seen := map[int]int{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		cards := deal(rnd.Uint64(), 20, 5)
		hand := map[int]bool{}
		for _, c := range cards[:5] {
			hand[c] = true
			seen[c]++
		}
		if len(hand) != 5 {
			t.Fatalf("dealt %v", cards[:5])
		}
	}
	for c := range 20 {
		if n := seen[c]; n < 4500 || n > 5500 {
			t.Errorf("card %d was dealt %d times, want about 5000", c, n)
		}
	}
}

// BenchmarkUnloaded is a request for which there is a seat.
func BenchmarkUnloaded(b *testing.B) {
	l := NewLevel(Config{Queues: 128, Hand: 6, Length: 50}, 100, 0)
	r := &Request{Seats: 1}
	for i := range b.N {
		now := time.Duration(i) * time.Microsecond
		l.Arrive(r, uint64(i)*0x9e3779b97f4a7c15, now)
		l.Finish(r, now)
	}
}
