// Package call holds one HTTP request under way: the place in the API that it names, its body and options, and the way to
// answer it.
//
// What flows through it: package server takes a request apart into a [Target], makes a [Call] of it, and hands it to the
// [Handler] of a room (verbs, connect, review, usage, documents), which reads with read.go and answers with answer.go.
// What must stay true: every answer to a failed request is a metav1.Status; an answer that has begun is never begun again;
// shared objects and shared bytes are sent and never changed. Tests: TestPanic, TestTruncated, TestRefusals
// (internal/server).
package call

import (
	"log/slog"
	"net/http"
	"net/url"

	"github.com/knarr-io/knarr/internal/server/wire"
)

// Call is one request and the way to answer it.
type Call struct {
	W      *Recorder
	R      *http.Request
	Target *Target
	Query  url.Values
	// Accept is the form of the answer: JSON until [Call.Negotiate] has chosen.
	Accept wire.Accepted

	// Begun is called when a watch has sent what it begins with: from then on it costs next to nothing. nil for all else.
	Begun func()

	Decoder *wire.Decoder
	Log     *slog.Logger

	body []byte
	turn turn
}

// Handler answers a call, or returns the error to answer with.
type Handler func(c *Call) error

// HasBegun calls Begun.
func (c *Call) HasBegun() {
	if c.Begun != nil {
		c.Begun()
	}
}

// Negotiate chooses the form of the answer by the Accept header. offers reports whether a transformation is on offer; nil
// offers none.
func (c *Call) Negotiate(offers func(wire.Accepted) bool) error {
	var without []wire.Format
	if res := c.Target.Res; res != nil && res.Unstructured && c.Target.Subresource != "scale" {
		without = []wire.Format{wire.Protobuf}
	}
	accept, ok := wire.Negotiate(c.R.Header.Get("Accept"), offers, without...)
	if !ok {
		return ErrNotAcceptable(without...)
	}
	c.Accept = accept
	return nil
}
