package server

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	q := r.URL.Query()
	t := parse(r.Method, r.URL.Path, q)
	w := &recorder{ResponseWriter: rw}
	x := &exchange{s: s, w: w, r: r, t: t, q: q}
	defer func() {
		p := recover()
		begun := w.Code != 0
		if p != nil && p != http.ErrAbortHandler {
			s.log.Error("a request made the server panic", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if !begun {
				x.fail(apierrors.NewInternalError(fmt.Errorf("panic while serving %s %s: %v", r.Method, r.URL.Path, p)))
			}
		}
		s.metrics.observe(t, w, time.Since(begin))
		if p == http.ErrAbortHandler || (p != nil && begun) {
			panic(http.ErrAbortHandler) // net/http ends the connection without a word
		}
	}()
	if err := s.serve(x); err != nil {
		x.fail(err)
	}
}

// serve lets the request through the gates and hands it to its verb.
func (s *Server) serve(x *exchange) error {
	if s.health(x) {
		return nil
	}
	if err := s.authenticate(x); err != nil {
		return err
	}
	ctx, cancel := x.deadline()
	defer cancel()
	x.r = x.r.WithContext(warning.WithWarningRecorder(request.With(ctx, &x.t.Info), &call.Warnings{Header: x.w.Header()}))
	if err := s.authorize(x); err != nil {
		return err
	}
	release, err := s.limits.acquire(x.t)
	if err != nil {
		x.w.Header().Set("Retry-After", "1")
		return err
	}
	defer release()
	return s.table.Serve(x.call())
}

// answerWithin bounds how long a request other than a watch or a stream may take, as in Kubernetes.
const answerWithin = time.Minute

// deadline returns the context of the request, bounded where the request is one that should end soon.
func (x *exchange) deadline() (context.Context, context.CancelFunc) {
	if x.t.Verb == "watch" || x.t.Connects() || strings.HasPrefix(x.r.URL.Path, "/debug/") {
		return x.r.Context(), func() {}
	}
	within := answerWithin
	if d, err := time.ParseDuration(x.q.Get("timeout")); err == nil && d > 0 && d < within {
		within = d
	}
	return context.WithTimeout(x.r.Context(), within)
}

// serveResource answers requests below a group-version.
func (s *Server) serveResource(c *call.Call) error {
	x := s.exchange(c)
	if err := x.t.resolve(); err != nil {
		return err
	}
	if err := x.fresh(); err != nil {
		return err
	}
	if x.t.Connects() {
		return s.connector.Serve(c)
	}
	accept, ok := wire.Negotiate(x.r.Header.Get("Accept"), x.offers)
	if !ok {
		return errNotAcceptable()
	}
	x.accept = accept
	if h := subresources[x.t.Subresource]; h != nil {
		return h(x)
	}
	switch x.t.Verb {
	case "get":
		return x.get()
	case "list":
		return x.list()
	case "watch":
		return x.watch()
	case "create":
		return x.create()
	case "update":
		return x.update()
	case "patch":
		return x.patch()
	case "delete":
		return x.delete()
	case "deletecollection":
		return x.deleteCollection()
	}
	return errMethod(x.t)
}

// fresh makes sure that what this server knows is new enough for the request
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list). A write is checked against what is there, so it needs to
// know that, too.
func (x *exchange) fresh() error {
	switch x.t.Verb {
	case "get", "list", "watch":
		switch rv := x.q.Get("resourceVersion"); {
		case x.q.Get("continue") != "":
			return nil // pages are of one revision
		case rv != "" && x.t.Verb == "get":
			return x.s.cfg.Registry.Reach(x.r.Context(), rv)
		case rv != "":
			return nil // these wait for theirs themselves
		}
	}
	return x.s.cfg.Registry.Fresh(x.r.Context())
}

// subresources are answered by functions of their own; status, ephemeralcontainers, resize and finalize are the object
// itself, written in part.
var subresources = map[string]func(*exchange) error{
	"scale":    (*exchange).scale,
	"binding":  (*exchange).binding,
	"eviction": (*exchange).evict,
	"token":    (*exchange).token,
}

// authenticate finds the user, and the one whom that user speaks for.
func (s *Server) authenticate(x *exchange) error {
	who, ok, err := s.cfg.Authenticator.Authenticate(x.r)
	if !ok {
		if err != nil {
			s.log.Debug("authentication failed", "path", x.r.URL.Path, "err", err)
		}
		return apierrors.NewUnauthorized("Unauthorized")
	}
	as, err := authz.Impersonate(x.r.Context(), s.cfg.Authorizer, x.r.Header, who)
	if err != nil {
		return err
	}
	x.t.User = as
	x.r.Header.Del("Authorization") // nobody behind this may come to see it
	return nil
}

// authorize asks whether the user may do this. Connecting to a container is creating something in it, whatever the HTTP
// method that the protocol needs.
func (s *Server) authorize(x *exchange) error {
	a := authz.AttributesOf(&x.t.Info)
	switch {
	case x.nodeRight(a):
		return nil
	case x.t.Subresource == "exec" || x.t.Subresource == "attach" || x.t.Subresource == "portforward":
		a.Verb = "create"
	case a.Verb == "list" || a.Verb == "watch" || a.Verb == "deletecollection":
		if sel, err := fields.ParseSelector(x.q.Get("fieldSelector")); err == nil {
			a.Fields = sel
			if name, ok := sel.RequiresExactMatch("metadata.name"); ok && a.Name == "" {
				a.Name = name
			}
		}
	}
	return authz.Check(x.r.Context(), s.cfg.Authorizer, a)
}
