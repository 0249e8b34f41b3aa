package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// exchange is one request and the way to answer it.
type exchange struct {
	s      *Server
	w      *recorder
	r      *http.Request
	t      *target
	q      url.Values
	accept wire.Accepted
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	q := r.URL.Query()
	t, inAPI := parse(r.Method, r.URL.Path, q)
	w := &recorder{ResponseWriter: rw}
	x := &exchange{s: s, w: w, r: r, t: t, q: q}
	defer func() {
		p := recover()
		begun := w.code != 0
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
	if err := s.serve(x, inAPI); err != nil {
		x.fail(err)
	}
}

// serve lets the request through the gates and hands it to its verb.
func (s *Server) serve(x *exchange, inAPI bool) error {
	if s.health(x) {
		return nil
	}
	if err := s.authenticate(x); err != nil {
		return err
	}
	ctx, cancel := x.deadline()
	defer cancel()
	x.r = x.r.WithContext(warning.WithWarningRecorder(request.With(ctx, &x.t.Info), &warner{header: x.w.Header()}))
	if err := s.authorize(x); err != nil {
		return err
	}
	release, err := s.limits.acquire(x.t)
	if err != nil {
		x.w.Header().Set("Retry-After", "1")
		return err
	}
	defer release()
	if !inAPI {
		return s.serveOther(x)
	}
	return s.serveResource(x)
}

// answerWithin bounds how long a request other than a watch or a stream may take, as in Kubernetes.
const answerWithin = time.Minute

// deadline returns the context of the request, bounded where the request is one that should end soon.
func (x *exchange) deadline() (context.Context, context.CancelFunc) {
	if x.t.Verb == "watch" || connectors[x.t.Subresource] != nil || strings.HasPrefix(x.r.URL.Path, "/debug/") {
		return x.r.Context(), func() {}
	}
	within := answerWithin
	if d, err := time.ParseDuration(x.q.Get("timeout")); err == nil && d > 0 && d < within {
		within = d
	}
	return context.WithTimeout(x.r.Context(), within)
}

// serveResource answers requests below a group-version.
func (s *Server) serveResource(x *exchange) error {
	if r, ok := findReview(x.t); ok {
		return x.review(r)
	}
	if x.t.Group == "apiextensions.k8s.io" && x.t.Version == "v1" && x.t.Resource == "customresourcedefinitions" && x.t.Verb == "list" {
		return x.noDefinitions()
	}
	if x.t.Group == usageGroup.Group {
		return x.usage()
	}
	if err := x.t.resolve(); err != nil {
		return err
	}
	if err := x.fresh(); err != nil {
		return err
	}
	if h := connectors[x.t.Subresource]; h != nil {
		return h(x) // these speak for themselves: text, upgraded connections, whatever a pod answers
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

// connectors are subresources that connect to something.
var connectors = map[string]func(*exchange) error{
	"log":         (*exchange).logs,
	"exec":        (*exchange).exec,
	"attach":      (*exchange).attach,
	"portforward": (*exchange).portForward,
	"proxy":       (*exchange).proxy,
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

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	code  int
	bytes int
}

func (w *recorder) WriteHeader(code int) {
	if w.code == 0 || w.code < 200 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach Flush and Hijack.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// warner puts warnings into Warning headers (KEP-1693), each once, as long as they fit.
type warner struct {
	header http.Header
	size   int
}

func (w *warner) AddWarning(agent, text string) {
	const most = 4096
	if agent == "" {
		agent = "-"
	}
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
	line := fmt.Sprintf("299 %s %s", agent, quote(text))
	for _, have := range w.header.Values("Warning") {
		if have == line {
			return
		}
	}
	if w.size += len(line); w.size > most {
		return
	}
	w.header.Add("Warning", line)
}

// quote writes a quoted-string (RFC 9110 section 5.6.4).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// statusOf returns err as an API status; errors that are none are the server's own.
func statusOf(err error) *apierrors.StatusError {
	var st *apierrors.StatusError
	if errors.As(err, &st) {
		return st
	}
	return apierrors.NewInternalError(err)
}
