package server

import (
	"context"
	"net/http"
	"net/http/pprof"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/connect"
	"github.com/knarr-io/knarr/internal/server/documents"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/review"
	"github.com/knarr-io/knarr/internal/server/route"
	"github.com/knarr-io/knarr/internal/server/usage"
	"github.com/knarr-io/knarr/internal/server/verbs"
)

// routes wires up who answers what.
func routes(cfg Config, metrics http.Handler) route.Table {
	connector := connect.New(connect.Config{Registry: cfg.Registry, Admission: cfg.Admission, Streams: cfg.Streams, Dial: cfg.Dial})
	stored := verbs.New(verbs.Config{
		Registry: cfg.Registry, Authorizer: cfg.Authorizer, Admission: cfg.Admission, Issuer: cfg.Issuer, Connect: connector.Serve,
	})
	reviewer := review.New(review.Config{Tokens: cfg.Tokens, Authorizer: cfg.Authorizer})
	meter := usage.New(usage.Config{
		Registry: cfg.Registry,
		Node:     func(ctx context.Context, name string) (usage.Node, error) { return connector.Endpoints(ctx, name) },
		Log:      cfg.Log,
	})
	t := route.Table{
		Groups: map[schema.GroupVersion]call.Handler{
			authenticationv1.SchemeGroupVersion:            reviewer.Serve,
			authorizationv1.SchemeGroupVersion:             reviewer.Serve,
			usage.GroupVersion:                             meter.Serve,
			{Group: "apiextensions.k8s.io", Version: "v1"}: noDefinitions(cfg.Registry),
		},
		Resources: stored.Serve,
		Paths:     paths(cfg, metrics),
	}
	library := documents.New(documents.Config{
		Resources: api.Builtin, Reviews: review.Kinds(), Usage: usage.Kinds(), Version: cfg.Version, Address: cfg.Address,
		Fixed: cfg.Documents, Paths: append(t.List(), "/healthz", "/livez", "/readyz"),
	})
	t.Documents = library.Serve
	return t
}

// paths are those outside resources that are no documents.
func paths(cfg Config, metrics http.Handler) map[string]call.Handler {
	m := map[string]call.Handler{
		"/metrics":             route.Reading(metrics),
		"/debug/pprof":         route.Reading(http.HandlerFunc(pprof.Index)),
		"/debug/pprof/":        route.Reading(http.HandlerFunc(pprof.Index)),
		"/debug/pprof/cmdline": route.Reading(http.HandlerFunc(pprof.Cmdline)),
		"/debug/pprof/profile": route.Reading(http.HandlerFunc(pprof.Profile)),
		"/debug/pprof/trace":   route.Reading(http.HandlerFunc(pprof.Trace)),
		// Symbols are looked up with POST as well.
		"/debug/pprof/symbol": func(c *call.Call) error { pprof.Symbol(c.W, c.R); return nil },
	}
	for p, h := range cfg.Handlers {
		m[p] = func(c *call.Call) error { return h(c.W, c.R) }
	}
	return m
}

// noDefinitions answers who asks which kinds custom resource definitions add: none. kubectl apply asks for a kind that it does
// not find, and reports that nobody knows the kind if there is an answer.
func noDefinitions(r *registry.Registry) call.Handler {
	return func(c *call.Call) error {
		if c.Target.Resource != "customresourcedefinitions" || c.Target.Verb != "list" {
			return call.ErrNoPath()
		}
		if err := c.Negotiate(nil); err != nil {
			return err
		}
		return c.JSON(map[string]any{"kind": "CustomResourceDefinitionList", "apiVersion": "apiextensions.k8s.io/v1",
			"metadata": metav1.ListMeta{ResourceVersion: r.Revision()}, "items": []any{}})
	}
}
