// Package gate is what every request passes before it is answered: who sends it, whether they may, and whether there is room
// for it.
//
// What flows through it: an HTTP request becomes a call (package call), gets its user (authenticate.go), the right to go on
// (authorize.go), a bound on its time, and seats (share.go), and goes on to [Config.Next]; what was answered is counted
// (metrics.go). What must stay true: nothing but health is given to someone who is not authenticated and authorized; a body is
// not read before its sender is known to be allowed to send it. Tests: TestHealth, TestHalfSentBodies (internal/server).
package gate

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/fair"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// Config is what a Gate works with. Authenticator, Authorizer, Metrics, Next and Log are required.
type Config struct {
	Authenticator authn.Authenticator
	// Authorizer decides about every request but health.
	Authorizer authz.Authorizer
	// Ready are the checks of /readyz, in order. /livez and /healthz report that the process answers.
	Ready []Check
	// Fairness decides who is served at once, who waits and who is refused; nil stands for one that knows the mandatory levels alone.
	Fairness *fair.Fairness
	// Sizes tell how much lists go through; nil: nothing.
	Sizes fair.Sizes
	// Served says which resources there are: the others' names make no labels. nil: the built-in ones.
	Served func() *api.Catalog
	// Metrics is the registry behind /metrics.
	Metrics *prometheus.Registry
	// Next answers the requests that may go on.
	Next call.Handler
	Log  *slog.Logger
}

// Gate lets requests in.
type Gate struct {
	cfg     Config
	decoder *wire.Decoder
	bodies  *share
	flight  flight
	metrics *metrics
	failing sync.Map // names of health checks that failed when they were last asked
}

// New returns a Gate.
func New(cfg Config) *Gate {
	if cfg.Fairness == nil {
		cfg.Fairness = fair.New(fair.Config{Seats: Seats})
	}
	if cfg.Sizes == nil {
		cfg.Sizes = sizeless{}
	}
	g := &Gate{cfg: cfg, decoder: wire.NewDecoder(api.Scheme), bodies: newShare(bodyBytes)}
	g.metrics = newMetrics(cfg.Metrics, &g.flight)
	g.metrics.served = cfg.Served
	if cfg.Served == nil {
		g.metrics.served = api.BuiltinCatalog
	}
	return g
}

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	c := &call.Call{W: &call.Recorder{ResponseWriter: rw}, R: r, Query: r.URL.Query(), Decoder: g.decoder, Log: g.cfg.Log}
	c.Target = call.Parse(r.Method, r.URL.Path, c.Query)
	defer func() {
		p := recover()
		begun := c.W.Code != 0
		if p != nil && p != http.ErrAbortHandler {
			g.cfg.Log.Error("a request made the server panic", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if !begun {
				c.Fail(apierrors.NewInternalError(fmt.Errorf("panic while serving %s %s: %v", r.Method, r.URL.Path, p)))
			}
		}
		g.metrics.observe(c, time.Since(begin))
		if p == http.ErrAbortHandler || (p != nil && begun) {
			panic(http.ErrAbortHandler) // net/http ends the connection without a word
		}
	}()
	if err := g.serve(c); err != nil {
		leaveBody(c)
		c.Fail(err)
	}
}

// serve lets the request through the gates and hands it to who answers it.
func (g *Gate) serve(c *call.Call) error {
	if g.health(c) {
		return nil
	}
	arrived := limitBody(c)
	if err := g.authenticate(c); err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	c.Target.Info.Manager = managerOf(c.R.UserAgent())
	c.R = c.R.WithContext(warning.WithWarningRecorder(request.With(ctx, &c.Target.Info), &call.Warnings{Header: c.W.Header()}))
	place := g.classify(c)
	if err := g.authorize(c); err != nil {
		return err
	}
	forget, err := g.receive(c)
	if err != nil {
		return err
	}
	defer forget()
	arrived()
	seat, err := g.enter(c, place)
	if err != nil {
		return err
	}
	defer seat.leave()
	defer g.metrics.begin(c)()
	return g.cfg.Next(c)
}

// answerWithin bounds how long a request other than a watch or a stream may take, as in Kubernetes.
const answerWithin = time.Minute

// deadline returns the context of the request, bounded where the request is one that should end soon.
func deadline(c *call.Call) (context.Context, context.CancelFunc, error) {
	if c.Target.Verb == "watch" || c.Target.Connects() || strings.HasPrefix(c.R.URL.Path, "/debug/") {
		return c.R.Context(), func() {}, nil
	}
	within := answerWithin
	if v := c.Query.Get("timeout"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			return nil, nil, apierrors.NewBadRequest("invalid timeout specified in the request URL - " + err.Error())
		}
		if d > 0 && d < within { // 0 is the client's wish for none
			within = d
		}
	}
	ctx, cancel := context.WithTimeout(c.R.Context(), within)
	return ctx, cancel, nil
}

// managerOf is the name under which the writes of a client are recorded that names no manager: its user agent's first word.
func managerOf(agent string) string {
	name, _, _ := strings.Cut(agent, "/")
	return name[:min(len(name), 128)]
}
