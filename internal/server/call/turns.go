package call

import (
	"io"
	"runtime"
	"time"
)

// Turns let no more large answers be made at a time than there are processors. Seats (server/fair) bound how many requests are served, most
// of which wait for disks or clients; answers of many megabytes are all work, and a small request would wait for each of them at each of its
// steps.
type Turns chan struct{}

// NewTurns returns as many turns as there are processors.
func NewTurns() Turns { return make(Turns, runtime.GOMAXPROCS(0)) }

// longestTurn is after how long a turn passes on, whatever its holder does: it may be waiting for a client that does not read.
const longestTurn = 10 * time.Millisecond

// turn is the turn of one answer. The zero turn needs none.
type turn struct {
	of   Turns
	back *time.Timer // gives it back; nil: it is not held
}

// take waits for a turn.
func (t *turn) take() {
	if t.of == nil {
		return
	}
	of := t.of
	of <- struct{}{}
	t.back = time.AfterFunc(longestTurn, func() { <-of })
}

// give gives the turn back.
func (t *turn) give() {
	if t.back != nil && t.back.Stop() {
		<-t.of
	}
	t.back = nil
}

// InTurns makes the rest of the answer in turns with other large ones. The returned function ends that.
func (c *Call) InTurns(of Turns) (done func()) {
	c.turn = turn{of: of}
	c.turn.take()
	return func() {
		c.turn.give()
		c.turn = turn{}
	}
}

// GiveWay lets another large answer have its turn. Whoever works for long calls it about every millisecond.
func (c *Call) GiveWay() {
	if c.turn.of == nil {
		return
	}
	c.turn.give()
	c.turn.take()
}

// inTurns returns w, which gives way after each piece if the answer is made in turns.
func (c *Call) inTurns(w io.Writer) io.Writer {
	if c.turn.of == nil {
		return w
	}
	return considerate{w, c}
}

// considerate gives way after each piece of an answer.
type considerate struct {
	io.Writer
	c *Call
}

func (w considerate) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.c.GiveWay()
	return n, err
}
