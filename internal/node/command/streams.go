package command

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
)

const (
	// quiet is how long nothing may have come after a command's end until its output is complete, where something else holds it open.
	quiet = 200 * time.Millisecond
	// drainMax is how long output is waited for at most: what a command leaves behind may go on writing.
	drainMax = 5 * time.Second
)

// outputs are what a command writes.
type outputs struct {
	stdout, stderr *output
}

func newOutputs(req request) *outputs {
	return &outputs{&output{to: req.stdout}, &output{to: req.stderr}}
}

// drain returns when all that a command has written is handed over. Whatever else has its output may hold it open: then it is all that has come by
// the time that nothing more comes.
func (o *outputs) drain(process client.Process) {
	closed := make(chan struct{})
	go func() { // ends when the process is deleted, at the latest
		if io := process.IO(); io != nil {
			io.Wait()
		}
		close(closed)
	}()
	began := time.Now()
	tick := time.NewTicker(quiet / 10)
	defer tick.Stop()
	for {
		select {
		case <-closed:
			return
		case now := <-tick.C:
			last := max(began.UnixNano(), o.stdout.last.Load(), o.stderr.last.Load())
			if now.Sub(time.Unix(0, last)) > quiet || now.Sub(began) > drainMax {
				return
			}
		}
	}
}

// output is one of them. A reader that has gone does not stop the command: what it writes is thrown away.
type output struct {
	to   io.Writer
	gone atomic.Bool
	last atomic.Int64 // when something came, in nanoseconds
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.last.Store(time.Now().UnixNano())
	if o.to == nil || o.gone.Load() {
		return len(b), nil
	}
	if _, err := o.to.Write(b); err != nil {
		o.gone.Store(true)
	}
	return len(b), nil
}

// endOfTransmission is what a terminal sends at the end of its input (Ctrl-D): a shell that has lost its user ends.
const endOfTransmission = 0x04

// input is what a command reads.
type input struct {
	from  io.Reader
	tty   bool
	ended chan struct{} // closed at the input's end
	over  bool
}

func newInput(req request) *input {
	return &input{from: req.stdin, tty: req.tty, ended: make(chan struct{})}
}

// Read implements io.Reader, for one goroutine.
func (i *input) Read(b []byte) (int, error) {
	if i.over || len(b) == 0 {
		return 0, io.EOF
	}
	n, err := i.from.Read(b)
	if err == nil {
		return n, nil
	}
	i.over = true
	close(i.ended)
	if i.tty && n < len(b) {
		b[n] = endOfTransmission
		return n + 1, nil
	}
	if !errors.Is(err, io.EOF) {
		err = io.EOF // who sent it has gone: for the command that is its end
	}
	if n > 0 {
		return n, nil
	}
	return 0, err
}
