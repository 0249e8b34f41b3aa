package server

import (
	"context"
	"net/http"
	"net/http/pprof"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/knarr-io/knarr/internal/server/aggregate"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/components"
	"github.com/knarr-io/knarr/internal/server/connect"
	"github.com/knarr-io/knarr/internal/server/discovery"
	"github.com/knarr-io/knarr/internal/server/documents"
	"github.com/knarr-io/knarr/internal/server/fair"
	"github.com/knarr-io/knarr/internal/server/gate"
	"github.com/knarr-io/knarr/internal/server/openapi"
	"github.com/knarr-io/knarr/internal/server/review"
	"github.com/knarr-io/knarr/internal/server/route"
	"github.com/knarr-io/knarr/internal/server/usage"
	"github.com/knarr-io/knarr/internal/server/verbs"
)

// routes wires up who answers what.
func routes(cfg Config, g *gate.Gate, f *fair.Fairness) route.Table {
	connector := connect.New(connect.Config{Registry: cfg.Registry, Streams: cfg.Streams, Dial: cfg.Dial})
	stored := verbs.New(verbs.Config{
		Registry: cfg.Registry, Authorizer: cfg.Authorizer, Issuer: cfg.Issuer, Connect: connector.Serve,
	})
	reviewer := review.New(review.Config{Tokens: cfg.Tokens, Authorizer: cfg.Authorizer})
	meter := usage.New(usage.Config{
		Registry: cfg.Registry,
		Node:     func(ctx context.Context, name string) (usage.Node, error) { return connector.Endpoints(ctx, name) },
		Log:      cfg.Log,
	})
	others := cfg.Aggregator
	if others == nil {
		others = aggregate.New(aggregate.Config{Log: cfg.Log})
	}
	t := route.Table{
		Foreign: others.Handler,
		Groups: map[schema.GroupVersion]call.Handler{
			authenticationv1.SchemeGroupVersion: reviewer.Serve,
			authorizationv1.SchemeGroupVersion:  reviewer.Serve,
			usage.GroupVersion:                  meter.Serve,
		},
		Virtual: map[schema.GroupVersionResource]call.Handler{
			components.Resource:   components.New(check(cfg.Ready, "etcd")).Serve,
			verbs.BindingResource: stored.Bindings,
		},
		Resources: stored.Serve,
		Paths:     paths(cfg, g, f),
	}
	library := documents.New(documents.Config{
		Foreign: func() (any, []discovery.Foreign, []openapi.Foreign) {
			s := others.Seen()
			return s, s.Discovery, s.OpenAPI
		},
		PassDocument: others.Document,
		Served:       cfg.Registry.Served(), Reviews: slices.Concat(review.Kinds(), components.Kinds(), verbs.BindingKinds()), Others: usage.Kinds(), Version: cfg.Version, Address: cfg.Address,
		Fixed: cfg.Documents, Paths: append(t.List(), "/healthz", "/livez", "/readyz"),
	})
	t.Documents = library.Serve
	return t
}

// paths are those outside resources that are no documents.
func paths(cfg Config, g *gate.Gate, f *fair.Fairness) map[string]call.Handler {
	m := map[string]call.Handler{
		"/metrics":             known(route.Reading(g.Metrics())),
		"/metrics/slis":        known(route.Reading(g.SLIs())),
		"/debug/pprof":         route.Reading(http.HandlerFunc(pprof.Index)),
		"/debug/pprof/":        route.Reading(http.HandlerFunc(pprof.Index)),
		"/debug/pprof/cmdline": route.Reading(http.HandlerFunc(pprof.Cmdline)),
		"/debug/pprof/profile": route.Reading(http.HandlerFunc(pprof.Profile)),
		"/debug/pprof/trace":   route.Reading(http.HandlerFunc(pprof.Trace)),
		// Symbols are looked up with POST as well.
		"/debug/pprof/symbol": func(c *call.Call) error { pprof.Symbol(c.W, c.R); return nil },
	}
	for name, h := range f.Dumps() {
		m["/debug/api_priority_and_fairness/"+name] = route.Reading(h)
	}
	for p, h := range cfg.Handlers {
		m[p] = func(c *call.Call) error { return h(c.W, c.R) }
	}
	return m
}

// check is the check of a name, or nil.
func check(all []Check, name string) func(context.Context) error {
	for _, c := range all {
		if c.Name == name {
			return c.Check
		}
	}
	return nil
}

// known marks the path of a handler as one that there is.
func known(h call.Handler) call.Handler {
	return func(c *call.Call) error {
		c.Target.Known = true
		return h(c)
	}
}
