package server

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

var statusKind = schema.GroupVersionKind{Version: "v1", Kind: "Status"}

// fail answers with err as a metav1.Status, unless the answer has begun.
func (x *exchange) fail(err error) {
	st := statusOf(err)
	if x.w.code != 0 {
		x.s.log.Debug("a request failed after its answer had begun", "path", x.r.URL.Path, "err", err)
		return
	}
	status := st.ErrStatus
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	if status.Code == http.StatusUnauthorized {
		x.w.Header().Set("WWW-Authenticate", `Bearer realm="knarr"`)
	}
	switch {
	case status.Code == http.StatusServiceUnavailable || status.Code == http.StatusGatewayTimeout: // as long as etcd elects, or an agent is away
		x.s.log.Debug("a request could not be served for now", "method", x.r.Method, "path", x.r.URL.Path, "code", status.Code, "err", err)
	case status.Code >= 500:
		x.s.log.Warn("a request failed", "method", x.r.Method, "path", x.r.URL.Path, "code", status.Code, "err", err)
	}
	accept, ok := wire.Negotiate(x.r.Header.Get("Accept"), func(wire.Accepted) bool { return true })
	if !ok {
		accept = wire.Accepted{}
	}
	x.accept = wire.Accepted{Format: accept.Format}
	x.document(int(status.Code), &status, statusKind)
}

// errNotAcceptable is the answer to an Accept header that names nothing the server has.
func errNotAcceptable() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor",
	}}
}

func errUnsupportedMedia(accepted ...string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(accepted, ", "),
	}}
}

// pretty says whether JSON should be indented: when asked for, and for people with a browser or curl.
func (x *exchange) pretty() bool {
	if v, ok := x.q["pretty"]; ok {
		return truth(v[0])
	}
	agent := x.r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// document answers with an object that is not stored as it is: a status, a review, a table.
func (x *exchange) document(code int, obj runtime.Object, gvk schema.GroupVersionKind) {
	f := x.accept.Format
	if f == wire.Protobuf && !wire.HasProtobuf(obj) {
		f = wire.JSON
	}
	b, err := wire.Encode(obj, gvk, f, x.pretty())
	if err != nil {
		x.s.log.Error("an answer could not be encoded", "path", x.r.URL.Path, "kind", gvk.String(), "err", err)
		http.Error(x.w, err.Error(), http.StatusInternalServerError)
		return
	}
	x.send(code, f.MediaType(), b)
}

// object answers with one object of the target's resource, in the form the client asked for. rev may be nil where obj has not
// been stored (dry run).
func (x *exchange) object(code int, obj api.Object, rev *store.Revision) error {
	if x.accept.As.Kind != "" {
		return x.transformed(code, obj)
	}
	gvk := x.t.kind()
	if rev != nil {
		item, err := x.item(rev)
		if err != nil {
			return err
		}
		b, err := wire.Document(item, gvk, x.accept.Format, x.pretty())
		if err != nil {
			return err
		}
		x.send(code, x.accept.Format.MediaType(), b)
		return nil
	}
	out, err := api.Convert(obj, x.t.gv())
	if err != nil {
		return err
	}
	x.document(code, out, gvk)
	return nil
}

// item returns the bytes of a stored revision in the client's format and version, shared with everyone who asks for the
// same.
func (x *exchange) item(rev *store.Revision) ([]byte, error) {
	gvk := x.t.kind()
	if x.t.foreign() {
		obj, err := api.Convert(rev.Object, gvk.GroupVersion())
		if err != nil {
			return nil, err
		}
		return wire.Item(obj, gvk, x.accept.Format)
	}
	switch x.accept.Format {
	case wire.JSON:
		return rev.Bytes(store.JSON, func(o store.Object) ([]byte, error) { return wire.Item(o, gvk, wire.JSON) })
	case wire.Protobuf:
		return rev.Bytes(store.Protobuf, func(o store.Object) ([]byte, error) { return wire.Item(o, gvk, wire.Protobuf) })
	}
	return wire.Item(rev.Object, gvk, x.accept.Format)
}

// compressFrom is the size from which answers are compressed, as in Kubernetes: below, it costs more than it saves.
const compressFrom = 128 << 10

var gzips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
	return z
}}

// send answers with body.
func (x *exchange) send(code int, contentType string, body []byte) {
	w, done := x.begin(code, contentType, len(body))
	defer done()
	_, _ = w.Write(body) // a client that went away has no use for the error
}

// begin starts an answer of about size bytes and returns where to write it, compressed if that helps.
func (x *exchange) begin(code int, contentType string, size int) (io.Writer, func()) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache, private")
	}
	h.Add("Vary", "Accept")
	if size < compressFrom || !acceptsGzip(x.r.Header.Get("Accept-Encoding")) {
		x.w.WriteHeader(code)
		return x.w, func() {}
	}
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
	x.w.WriteHeader(code)
	z := gzips.Get().(*gzip.Writer)
	z.Reset(x.w)
	return z, func() {
		_ = z.Close()
		z.Reset(nil)
		gzips.Put(z)
	}
}

func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") && strings.ReplaceAll(params, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

// marshalIndent writes what people read.
func marshalIndent(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

// newOf returns an empty object of kind gvk.
func newOf(gvk schema.GroupVersionKind) (runtime.Object, error) { return api.Scheme.New(gvk) }
