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
	"github.com/knarr-io/knarr/internal/server/documents"
	"github.com/knarr-io/knarr/internal/server/review"
	"github.com/knarr-io/knarr/internal/server/route"
	"github.com/knarr-io/knarr/internal/server/usage"
)

// routes wires up who answers what.
func (s *Server) routes() *route.Table {
	reviewer := review.New(review.Config{Tokens: s.cfg.Tokens, Authorizer: s.cfg.Authorizer})
	meter := usage.New(usage.Config{
		Registry: s.cfg.Registry,
		Node:     func(ctx context.Context, name string) (usage.Node, error) { return s.connector.Endpoints(ctx, name) },
		Log:      s.log,
	})
	t := &route.Table{
		Groups: map[schema.GroupVersion]call.Handler{
			authenticationv1.SchemeGroupVersion:            reviewer.Serve,
			authorizationv1.SchemeGroupVersion:             reviewer.Serve,
			usage.GroupVersion:                             meter.Serve,
			{Group: "apiextensions.k8s.io", Version: "v1"}: s.noDefinitions,
		},
		Resources: s.serveResource,
		Paths:     s.paths(),
	}
	library := documents.New(documents.Config{
		Resources: api.Builtin, Reviews: review.Kinds(), Usage: usage.Kinds(), Version: s.cfg.Version, Address: s.cfg.Address,
		Fixed: s.cfg.Documents, Paths: append(t.List(), "/healthz", "/livez", "/readyz"),
	})
	t.Documents = library.Serve
	return t
}

// paths are those outside resources that are no documents.
func (s *Server) paths() map[string]call.Handler {
	m := map[string]call.Handler{
		"/metrics":             route.Reading(s.metrics.handler()),
		"/debug/pprof":         route.Reading(http.HandlerFunc(pprof.Index)),
		"/debug/pprof/":        route.Reading(http.HandlerFunc(pprof.Index)),
		"/debug/pprof/cmdline": route.Reading(http.HandlerFunc(pprof.Cmdline)),
		"/debug/pprof/profile": route.Reading(http.HandlerFunc(pprof.Profile)),
		"/debug/pprof/trace":   route.Reading(http.HandlerFunc(pprof.Trace)),
		// Symbols are looked up with POST as well.
		"/debug/pprof/symbol": func(c *call.Call) error { pprof.Symbol(c.W, c.R); return nil },
	}
	for p, h := range s.cfg.Handlers {
		m[p] = func(c *call.Call) error { return h(c.W, c.R) }
	}
	return m
}

// noDefinitions answers who asks which kinds custom resource definitions add: none. kubectl apply asks for a kind that it does
// not find, and reports that nobody knows the kind if there is an answer.
func (s *Server) noDefinitions(c *call.Call) error {
	if c.Target.Resource != "customresourcedefinitions" || c.Target.Verb != "list" {
		return call.ErrNoPath()
	}
	if err := c.Negotiate(nil); err != nil {
		return err
	}
	return c.JSON(map[string]any{"kind": "CustomResourceDefinitionList", "apiVersion": "apiextensions.k8s.io/v1",
		"metadata": metav1.ListMeta{ResourceVersion: s.cfg.Registry.Revision()}, "items": []any{}})
}
