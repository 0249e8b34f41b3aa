package server

import (
	"net/http"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// exchange is a call of a stored resource.
type exchange struct {
	s      *Server
	w      *recorder
	r      *http.Request
	t      *target
	q      url.Values
	accept wire.Accepted
}

type recorder = call.Recorder

// target is the place of a stored resource.
type target struct{ *call.Target }

func (t *target) gv() schema.GroupVersion             { return t.GV() }
func (t *target) kind() schema.GroupVersionKind       { return t.Kind() }
func (t *target) listKind() schema.GroupVersionKind   { return t.ListKind() }
func (t *target) foreign() bool                       { return t.Foreign() }
func (t *target) key() api.Key                        { return t.Key() }
func (t *target) groupResource() schema.GroupResource { return t.GroupResource() }

func parse(method, path string, query url.Values) *target {
	t, _ := call.Parse(method, path, query)
	return &target{t}
}

// call is x for the rooms of the server.
func (x *exchange) call() *call.Call {
	return &call.Call{W: x.w, R: x.r, Target: x.t.Target, Query: x.q, Accept: x.accept, Decoder: x.s.decoder, Log: x.s.log}
}

// exchange is the call c as the verbs see it.
func (s *Server) exchange(c *call.Call) *exchange {
	return &exchange{s: s, w: c.W, r: c.R, t: &target{c.Target}, q: c.Query, accept: c.Accept}
}

var (
	statusKind      = call.StatusKind
	tableKind       = call.TableKind
	partialKind     = call.PartialKind
	partialListKind = call.PartialListKind
)

func (x *exchange) fail(err error)                       { x.call().Fail(err) }
func (x *exchange) pretty() bool                         { return x.call().Pretty() }
func (x *exchange) body() ([]byte, error)                { return x.call().Body() }
func (x *exchange) warn(warnings []string)               { x.call().Warn(warnings) }
func (x *exchange) parameters(into runtime.Object) error { return x.call().Parameters(into) }
func (x *exchange) decode(gvk schema.GroupVersionKind, into runtime.Object, validation string) (runtime.Object, error) {
	return x.call().Decode(gvk, into, validation)
}
func (x *exchange) document(code int, obj runtime.Object, gvk schema.GroupVersionKind) {
	x.call().Document(code, obj, gvk)
}
func (x *exchange) send(code int, contentType string, b []byte) { x.call().Send(code, contentType, b) }

func fieldValidation(v string) string                       { return call.FieldValidation(v) }
func partial(m metav1.Object) *metav1.PartialObjectMetadata { return call.Partial(m) }
func statusOf(err error) *apierrors.StatusError             { return call.StatusOf(err) }
func errNoPath() error                                      { return call.ErrNoPath() }
func errMethod(t *target) error                             { return call.ErrMethod(t.Target) }
func errNotAcceptable() error                               { return call.ErrNotAcceptable() }
func errUnsupportedMedia(accepted ...string) error          { return call.ErrUnsupportedMedia(accepted...) }
