package call

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/server/wire"
)

// StatusKind is the kind of answers to what failed.
var StatusKind = schema.GroupVersionKind{Version: "v1", Kind: "Status"}

// Fail answers with err as a metav1.Status, unless the answer has begun.
func (c *Call) Fail(err error) {
	st := StatusOf(err)
	if c.W.Code != 0 {
		c.Log.Debug("a request failed after its answer had begun", "path", c.R.URL.Path, "err", err)
		return
	}
	status := st.ErrStatus
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		c.W.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	if status.Code == http.StatusUnauthorized {
		c.W.Header().Set("WWW-Authenticate", `Bearer realm="knarr"`)
	}
	switch {
	case status.Code == http.StatusServiceUnavailable || status.Code == http.StatusGatewayTimeout: // as long as etcd elects, or an agent is away
		c.Log.Debug("a request could not be served for now", "method", c.R.Method, "path", c.R.URL.Path, "code", status.Code, "err", err)
	case status.Code >= 500:
		c.Log.Warn("a request failed", "method", c.R.Method, "path", c.R.URL.Path, "code", status.Code, "err", err)
	}
	accept, ok := wire.Negotiate(c.R.Header.Get("Accept"), func(wire.Accepted) bool { return true })
	if !ok {
		accept = wire.Accepted{}
	}
	c.Accept = wire.Accepted{Format: accept.Format}
	c.Document(int(status.Code), &status, StatusKind)
}

// Pretty reports whether JSON should be indented: when asked for, and for people with a browser or curl.
func (c *Call) Pretty() bool {
	if v, ok := c.Query["pretty"]; ok {
		return Truth(v[0])
	}
	agent := c.R.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// Document answers with an object that is not stored as it is: a status, a review, a table.
func (c *Call) Document(code int, obj runtime.Object, gvk schema.GroupVersionKind) {
	f := c.Accept.Format
	if f == wire.Protobuf && !wire.HasProtobuf(obj) {
		f = wire.JSON
	}
	b, err := wire.Encode(obj, gvk, f, c.Pretty())
	if err != nil {
		c.Log.Error("an answer could not be encoded", "path", c.R.URL.Path, "kind", gvk.String(), "err", err)
		http.Error(c.W, err.Error(), http.StatusInternalServerError)
		return
	}
	c.Send(code, f.MediaType(), b)
}

// JSON answers with a value that is no API object, indented for people.
func (c *Call) JSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	c.Send(http.StatusOK, wire.TypeJSON, append(b, '\n'))
	return nil
}

// compressFrom is the size from which answers are compressed, as in Kubernetes: below, it costs more than it saves.
const compressFrom = 128 << 10

var gzips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
	return z
}}

// Send answers with body.
func (c *Call) Send(code int, contentType string, body []byte) {
	w, done := c.Begin(code, contentType, len(body))
	defer done()
	_, _ = w.Write(body) // a client that went away has no use for the error
}

// Begin starts an answer of about size bytes and returns where to write it, compressed if that helps. done ends the answer.
func (c *Call) Begin(code int, contentType string, size int) (w io.Writer, done func()) {
	h := c.W.Header()
	h.Set("Content-Type", contentType)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache, private")
	}
	h.Add("Vary", "Accept")
	lift := c.limitAnswer(size)
	if size < compressFrom || !c.AcceptsGzip() {
		c.W.WriteHeader(code)
		return c.inTurns(c.W), lift
	}
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
	c.W.WriteHeader(code)
	z := gzips.Get().(*gzip.Writer)
	z.Reset(c.W)
	return c.inTurns(z), func() {
		_ = z.Close()
		z.Reset(nil)
		gzips.Put(z)
		lift()
	}
}

const (
	// limitFrom is the size from which an answer may have to wait for its reader; what is smaller fits into the buffers of the connection.
	limitFrom = 64 << 10
	// answerGrace is how long an answer may take that begins when the request's time is over: it says so.
	answerGrace = 3 * time.Second
)

// limitAnswer bounds how long a client may take to receive a large answer to a request that should end soon: one that does not read would
// hold its slot, and all that the answer is made of, for ever. The returned function lifts the bound, which is the connection's.
func (c *Call) limitAnswer(size int) (lift func()) {
	until, bounded := c.R.Context().Deadline()
	if !bounded || size < limitFrom {
		return func() {}
	}
	control := http.NewResponseController(c.W)
	_ = control.SetWriteDeadline(until.Add(answerGrace)) // connections that know no deadline are those of tests
	return func() { _ = control.SetWriteDeadline(time.Time{}) }
}

// AcceptsGzip reports whether the client takes compressed answers.
func (c *Call) AcceptsGzip() bool {
	for part := range strings.SplitSeq(c.R.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") && strings.ReplaceAll(params, " ", "") != "q=0" {
			return true
		}
	}
	return false
}
