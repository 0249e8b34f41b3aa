// Package verbs answers what is asked of stored resources: get, list, watch, create, update, patch, delete, and the
// subresources that read or write them.
//
// What flows through it: a call finds its resource (resolve.go), waits until this server knows enough for it, and goes to the file
// of its verb or subresource, which reads options and object, calls the registry - the front door that defaults, admits,
// validates and stores - and sends the answer (object.go, table.go). What must stay true: lists and watches send each
// revision's shared bytes and never change shared objects; one goroutine per watch. Tests: TestWatchOverTime,
// TestWorkEndsWithTheClient (internal/server).
package verbs

import (
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// Config is what Verbs work with. Registry, Authorizer and Connect are required.
type Config struct {
	Registry   *registry.Registry
	Authorizer authz.Authorizer
	// Issuer signs service account tokens; nil answers TokenRequests with 503.
	Issuer TokenIssuer
	// Connect answers subresources that connect to something.
	Connect call.Handler
}

// Verbs answer calls of stored resources.
type Verbs struct {
	cfg   Config
	turns call.Turns
}

// New returns Verbs.
func New(cfg Config) *Verbs { return &Verbs{cfg, call.NewTurns()} }

// Serve answers a call of a stored resource.
func (v *Verbs) Serve(c *call.Call) error {
	catalog := v.cfg.Registry.Served().Now()
	if err := resolve(catalog, c.Target); err != nil {
		return err
	}
	c.Target.Known = true
	if res := c.Target.Res; res.Refusal != nil {
		if err := res.Refusal(c.Target.Verb); err != nil {
			return err
		}
	}
	if text := c.Target.Res.Deprecation; text != "" {
		c.Warn([]string{text})
	}
	if err := v.fresh(c); err != nil {
		return err
	}
	if c.Target.Connects() {
		return v.cfg.Connect(c)
	}
	if err := c.Negotiate(offers(c.Target)); err != nil {
		return err
	}
	switch c.Target.Subresource {
	case "scale":
		return v.scale(c)
	case "binding":
		return v.binding(c)
	case "eviction":
		return v.evict(c)
	case "token":
		return v.token(c)
	}
	switch c.Target.Verb {
	case "get":
		return v.get(c)
	case "list":
		return v.list(c)
	case "watch":
		return v.watch(c)
	case "create":
		return v.create(c)
	case "update":
		return v.update(c)
	case "patch":
		return v.patch(c)
	case "delete":
		return v.delete(c)
	case "deletecollection":
		return v.deleteCollection(c)
	}
	return call.ErrMethod(c.Target)
}

// fresh makes sure that what this server knows is new enough for the request
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list). A write is checked against what is
// there, so it needs to know that, too.
func (v *Verbs) fresh(c *call.Call) error {
	switch c.Target.Verb {
	case "get", "list", "watch":
		switch rv := c.Query.Get("resourceVersion"); {
		case c.Query.Get("continue") != "":
			return nil // pages are of one revision
		case rv != "" && c.Target.Verb == "get":
			return v.cfg.Registry.Reach(c.R.Context(), rv)
		case rv != "":
			return nil // these wait for theirs themselves
		}
	}
	return v.cfg.Registry.Fresh(c.R.Context())
}
