package gate

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/fair"
	"github.com/knarr-io/knarr/internal/server/request"
)

// Seats is how many requests are served at a time, as kube-apiserver's --max-requests-inflight and
// --max-mutating-requests-inflight have it together.
const Seats = 600

// flight counts the requests that are served at present.
type flight struct{ reads, writes atomic.Int64 }

// of is the count of requests of a verb.
func (f *flight) of(verb string) *atomic.Int64 {
	switch verb {
	case "get", "list", "watch", "head", "options":
		return &f.reads
	}
	return &f.writes
}

// sizeless knows no objects.
type sizeless struct{}

func (sizeless) Mean(*request.Info) float64   { return 0 }
func (sizeless) Count(*request.Info, int) int { return 0 }

// The headers that name what a request was judged by, as net/http spells flowcontrolv1.ResponseHeaderMatched...UID.
const (
	schemaHeader = "X-Kubernetes-Pf-Flowschema-Uid"
	levelHeader  = "X-Kubernetes-Pf-Prioritylevel-Uid"
)

// classify finds the place of a request whose time the server has to share, and names it in the answer: a refusal, too, says by which
// objects it was judged. What lasts as long as its client likes has none.
func (g *Gate) classify(c *call.Call) fair.Place {
	if c.Target.Connects() || strings.HasPrefix(c.R.URL.Path, "/debug/pprof/") {
		return fair.Place{}
	}
	p := g.cfg.Fairness.Classify(&c.Target.Info)
	h := c.W.Header()
	if uid := p.SchemaUID(); uid != nil {
		h[schemaHeader] = uid
	}
	if uid := p.LevelUID(); uid != nil {
		h[levelHeader] = uid
	}
	return p
}

// seat is what a request holds while it is served.
type seat struct {
	stay  *fair.Stay
	count *atomic.Int64
}

// leave gives it back. It may be called again.
func (s seat) leave() {
	if s.stay != nil && s.stay.Leave() {
		s.count.Add(-1)
	}
}

// enter takes the seats that a request needs. A watch has them until what it begins with has been sent.
func (g *Gate) enter(c *call.Call, p fair.Place) (seat, error) {
	if p.None() {
		return seat{}, nil
	}
	t := c.Target
	watch := t.Verb == "watch"
	stay, err := g.cfg.Fairness.Enter(c.R.Context(), p, fair.Width(&t.Info, c.Query, g.cfg.Sizes, p.MaxWidth()), watch)
	var no *fair.Rejection
	switch {
	case errors.As(err, &no):
		return seat{}, errTooMany(t, no.RetryAfter)
	case err != nil:
		return seat{}, err
	}
	s := seat{stay, g.flight.of(t.Verb)}
	s.count.Add(1)
	if watch {
		c.Begun = s.leave
	}
	return s, nil
}

// errTooMany is the answer to a request that is not served, with the seconds after which to try again.
func errTooMany(t *call.Target, after int) error {
	err := apierrors.NewGenericServerResponse(http.StatusTooManyRequests, t.Verb, schema.GroupResource{}, "", "", after, true)
	err.ErrStatus.Message = "Too many requests, please try again later."
	return err
}
