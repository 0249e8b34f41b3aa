package queueing

import (
	"maps"
	"slices"
	"time"
)

// queue holds the requests of some flows that wait, in order, and knows how many of them are served.
type queue struct {
	index       int
	first, last *Request
	waiting     int
	waitingWork float64 // in seat-seconds
	executing   int
	seats       int     // of those that are served
	place       int     // in the backlog
	due         float64 // when, on the level's clock, its next request would be served if all queues were served side by side
}

func (q *queue) idle() bool { return q.waiting == 0 && q.executing == 0 }

// hands bounds the hand that a flow is dealt; what the API accepts is never more.
const hands = 16

// deal returns the queues that a flow may use: a hand of different cards out of a deck. hash is read as the digits of a number whose
// bases are deck, deck-1, and so on; each digit counts among the cards that are left.
func deal(hash uint64, deck, hand int) (cards [hands]int) {
	var digits [hands]int
	for i := range min(hand, deck, hands) {
		base := uint64(deck - i)
		digits[i] = int(hash % base)
		hash /= base
		card := digits[i]
		for j := i - 1; j >= 0; j-- {
			if card >= digits[j] {
				card++
			}
		}
		cards[i] = card
	}
	return cards
}

// choose returns the queue with the least work in it of those that a flow may use.
func (l *Level) choose(hash uint64) *queue {
	hand := max(min(l.config.Hand, l.config.Queues, hands), 1)
	cards := deal(hash, l.config.Queues, hand)
	first := int(l.arrived % uint64(hand)) // so that flows which share cards do not all prefer the same
	l.arrived++
	best, least := -1, 0.
	for i := range hand {
		card := cards[(first+i)%hand]
		work := 0.
		if q := l.queues[card]; q != nil {
			work = q.waitingWork
		}
		if best < 0 || work < least {
			best, least = card, work
		}
	}
	if q := l.queues[best]; q != nil {
		return q
	}
	q := &queue{}
	if n := len(l.spare); n > 0 {
		q, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	*q = queue{index: best}
	l.queues[best] = q
	return q
}

// enqueue puts a request at the end of a queue.
func (l *Level) enqueue(q *queue, r *Request) {
	r.queue, r.state = q, waiting
	r.prev, r.next = q.last, nil
	if q.last != nil {
		q.last.next = r
	} else {
		q.first = r
		q.place = len(l.backlog)
		l.backlog = append(l.backlog, q)
	}
	q.last = r
	q.waiting++
	q.waitingWork += r.work()
	l.Waiting++
	l.SeatsWaiting += r.Seats
	l.queuedSeats += r.Seats
	q.bound()
	l.note()
}

// dequeue takes a request out of its queue.
func (l *Level) dequeue(r *Request) {
	q := r.queue
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		q.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		q.last = r.prev
	}
	r.prev, r.next = nil, nil
	q.waiting--
	q.waitingWork -= r.work()
	if q.waiting == 0 {
		q.waitingWork = 0 // whatever rounding has left
		last := l.backlog[len(l.backlog)-1]
		l.backlog[q.place], last.place = last, q.place
		l.backlog = l.backlog[:len(l.backlog)-1]
	}
	l.Waiting--
	l.SeatsWaiting -= r.Seats
}

// settle ends a change of a queue from which a request has gone.
func (l *Level) settle(q *queue) {
	if !q.idle() {
		q.bound()
		return
	}
	delete(l.queues, q.index)
	if len(l.spare) < 64 {
		l.spare = append(l.spare, q)
	}
}

// bound keeps a queue that could not use all that it was entitled to from saving it up: no request is served before it has come.
func (q *queue) bound() {
	if q.first != nil && q.due < q.first.arrived {
		q.due = q.first.arrived
	}
}

// dispatch serves requests as long as there are seats, and returns them. The list is used again by the next call.
func (l *Level) dispatch(now time.Duration) []*Request {
	l.granted = l.granted[:0]
	for l.Waiting > 0 && l.SeatsInUse < l.seats {
		q := l.nextQueue()
		r := q.first
		if !l.fits(r.Seats) {
			l.Blocked++
			break
		}
		l.last = q.index
		l.dequeue(r)
		q.executing++
		q.seats += r.Seats
		q.due += r.work()
		l.serve(r, now)
		q.bound()
		l.granted = append(l.granted, r)
	}
	return l.granted
}

// nextQueue returns the queue whose oldest request would be done first. Of several it is the next in turn after the one that was
// served last.
func (l *Level) nextQueue() *queue {
	var best *queue
	var soonest float64
	for _, q := range l.backlog {
		done := q.due + q.first.work()
		if best == nil || done < soonest || done == soonest && l.turns(q) < l.turns(best) {
			best, soonest = q, done
		}
	}
	return best
}

// turns is how many queues come before q, from the one that was served last.
func (l *Level) turns(q *queue) int {
	n := max(l.config.Queues, 1)
	return ((q.index-l.last-1)%n + n) % n
}

// Queue is what a queue holds.
type Queue struct {
	Index, Waiting, Executing int
	SeatsInUse, SeatsWaiting  int
	Due, Work                 float64 // in seat-seconds
}

// Queues returns those with requests, in order.
func (l *Level) Queues() []Queue {
	out := make([]Queue, 0, len(l.queues))
	for _, i := range slices.Sorted(maps.Keys(l.queues)) {
		q := l.queues[i]
		view := Queue{Index: i, Waiting: q.waiting, Executing: q.executing, SeatsInUse: q.seats, Due: q.due, Work: q.waitingWork}
		for r := q.first; r != nil; r = r.next {
			view.SeatsWaiting += r.Seats
		}
		out = append(out, view)
	}
	return out
}
