// Package aggregate hands requests for some group-versions to other API servers: those that an APIService with a Service registers
// (https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/).
//
// What flows through it: an [Aggregator] follows the APIServices and knows a backend for each that names a Service. A call for its
// group-version goes to a ready endpoint, with the user in X-Remote-* headers (proxy.go). What a backend serves and documents is asked for
// once a minute and joins discovery and OpenAPI (discover.go, documents.go). What must stay true: a client's credentials never
// reach a backend; one that does not answer delays nobody but its own clients; without APIServices that name a Service a request costs one
// load of a pointer. Tests: TestRequestsArePassedOn, TestBackendsThatDoNotAnswer, BenchmarkNothingAggregated.
package aggregate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/store"
)

// Config is what an Aggregator works with.
type Config struct {
	Store *store.Store
	// FrontProxy returns the certificate by which backends know this server; nil: it has none, and backends believe nothing of what it says.
	FrontProxy func() *tls.Certificate
	Log        *slog.Logger
}

// Aggregator knows the API servers beside this one.
type Aggregator struct {
	cfg      Config
	backends atomic.Pointer[table] // nil where there are none
	seen     atomic.Pointer[Seen]
	// These wake the loops that ask backends what they serve and document.
	discover, document chan struct{}
}

type table = map[schema.GroupVersion]*backend

// New returns an Aggregator; Run makes it live.
func New(cfg Config) *Aggregator {
	a := &Aggregator{cfg: cfg, discover: make(chan struct{}, 1), document: make(chan struct{}, 1)}
	a.seen.Store(&Seen{})
	return a
}

// Handler returns what answers calls for a group-version that another server serves; nil where this one does.
func (a *Aggregator) Handler(gv schema.GroupVersion) call.Handler {
	t := a.backends.Load()
	if t == nil {
		return nil
	}
	if b := (*t)[gv]; b != nil {
		return b.serve
	}
	return nil
}

// all returns the backends in the order of their group-versions' names.
func (a *Aggregator) all() []*backend {
	t := a.backends.Load()
	if t == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(*t), func(x, y *backend) int { return compareVersions(x.gv, y.gv) })
}

// Run follows the APIServices until ctx ends. It calls ready once those that there are at the beginning are known.
func (a *Aggregator) Run(ctx context.Context, ready func()) error {
	select {
	case <-a.cfg.Store.Ready():
	case <-ctx.Done():
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.follow(ctx, ready) })
	g.Go(func() error { a.repeat(ctx, a.discover, a.discoverAll); return nil })
	g.Go(func() error { a.repeat(ctx, a.document, a.documentAll); return nil })
	return g.Wait()
}

// follow keeps the table of backends.
func (a *Aggregator) follow(ctx context.Context, ready func()) error {
	t := a.cfg.Store.Table(api.APIServices.Table())
	for {
		w, snap := t.WatchNow()
		for {
			a.apply(snap)
			if ready != nil {
				ready()
				ready = nil
			}
			_, err := w.Next(ctx)
			if err == nil {
				snap = t.Snapshot()
				continue
			}
			w.Stop()
			if ctx.Err() != nil {
				return nil
			}
			if !errors.Is(err, store.ErrTooOld) {
				return fmt.Errorf("watching APIServices: %w", err)
			}
			break
		}
	}
}

// apply makes the backends those of the APIServices in snap. Those that are as before stay.
func (a *Aggregator) apply(snap *store.Snapshot) {
	old, next := a.backends.Load(), table{}
	changed := false
	snap.Ascend("", "", func(rev *store.Revision) bool {
		s := rev.Object.(*apiregistrationv1.APIService)
		if s.Spec.Service == nil {
			return true
		}
		gv := schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}
		if old != nil && (*old)[gv].same(s) {
			next[gv] = (*old)[gv]
			return true
		}
		changed = true
		next[gv] = newBackend(a.cfg, s)
		if old != nil && (*old)[gv] != nil {
			next[gv].inherit((*old)[gv])
		}
		return true
	})
	if old != nil {
		for gv, b := range *old {
			if next[gv] != b {
				changed = true
				b.close()
			}
		}
	}
	if !changed {
		return
	}
	if len(next) == 0 {
		a.backends.Store(nil)
	} else {
		a.backends.Store(&next)
	}
	a.publish()
	for _, wake := range []chan struct{}{a.discover, a.document} {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// How often backends are asked again: as kube-aggregator does, and sooner where one that is available did not answer.
const (
	again     = time.Minute
	againSoon = 2 * time.Second
)

// repeat asks all backends whenever it is woken, and from time to time. ask reports whether all have answered.
func (a *Aggregator) repeat(ctx context.Context, wake <-chan struct{}, ask func(context.Context) bool) {
	for {
		wait := againSoon
		if ask(ctx) {
			wait = again
		}
		timer := time.NewTimer(wait)
		if a.backends.Load() == nil {
			timer.Stop() // nobody to ask before the next change
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// each calls f for all backends, several at a time, and reports whether it was true for all.
func (a *Aggregator) each(f func(*backend) bool) bool {
	const atOnce = 8
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, b := range a.all() {
		g.Go(func() error {
			if !f(b) {
				return errors.New("no answer")
			}
			return nil
		})
	}
	return g.Wait() == nil
}
