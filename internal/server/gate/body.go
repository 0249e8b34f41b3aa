package gate

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/server/call"
)

// bodyWithin is how long a body may take to arrive.
const bodyWithin = 30 * time.Second

// limitBody bounds how long the request's body may take, whoever reads it, and be it only to throw the rest away. The returned
// function lifts the bound once the body is there.
func limitBody(c *call.Call) (arrived func()) {
	if c.R.Body == nil || c.R.Body == http.NoBody {
		return func() {}
	}
	control := http.NewResponseController(c.W)
	_ = control.SetReadDeadline(time.Now().Add(bodyWithin)) // connections that know no deadline are those of tests
	return func() { _ = control.SetReadDeadline(time.Time{}) }
}

// What is read of the body of a request that is refused before it was asked for its body.
const (
	unreadWithin = 50 * time.Millisecond
	unreadBytes  = 64 << 10
)

// leaveBody makes a refusal ready that is sent before the request's body was read. The connection goes on if what is left of the body
// is small and there already; otherwise it ends with the refusal, which does not wait for the rest. (net/http cannot go on with a
// connection whose body nobody has read to its end while answers are full duplex: the next request on it would fail.)
func leaveBody(c *call.Call) {
	if c.R.Body == nil || c.R.Body == http.NoBody || c.Body() != nil || c.Target.Connects() || c.R.ProtoMajor != 1 {
		return
	}
	control := http.NewResponseController(c.W)
	_ = control.SetReadDeadline(time.Now().Add(unreadWithin))
	if n, err := io.CopyN(io.Discard, c.R.Body, unreadBytes); err == io.EOF || n < unreadBytes && c.R.ContentLength == n {
		_ = control.SetReadDeadline(time.Time{})
		return
	}
	_ = control.EnableFullDuplex() // without it the refusal would wait for the body
	c.W.Header().Set("Connection", "close")
}

// receive reads the body of a request that may go on, before it gets a seat: a body that trickles in must keep nobody else out. It
// returns what gives the body's memory back.
func (g *Gate) receive(c *call.Call) (release func(), err error) {
	if c.Target.Connects() || c.R.Body == nil || c.R.Body == http.NoBody {
		return func() {}, nil
	}
	who, held := c.Target.User.GetName(), 0
	counted := !exempt(c.Target.User)
	release = func() {
		if held > 0 {
			g.bodies.give(who, held)
		}
	}
	full := errors.New("no room for the body")
	err = c.Receive(func(n int) error {
		if !counted {
			return nil
		}
		if !g.bodies.take(who, n) {
			return full
		}
		held += n
		return nil
	})
	switch {
	case errors.Is(err, full):
		err = errTooMany(c.Target, 1)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errSlowBody()
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// errSlowBody is the answer to a body that does not arrive in time.
func errSlowBody() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusRequestTimeout, Reason: metav1.StatusReasonTimeout,
		Message: "the body of the request did not arrive within " + bodyWithin.String(),
	}}
}
