// Package route says who answers a call: a table from group-versions to handlers for what lies below /api and /apis, and one
// from paths to handlers for the rest.
//
// What flows through it: a call that the gate has let in. What must stay true: a group-version has one handler; what no entry
// names goes to the stored resources, or to the documents; a group-version that another server serves is that one's alone. Tests:
// TestEveryKindOfKubernetesIsKnown, TestOtherPaths (internal/server), TestRequestsArePassedOn (internal/server/aggregate).
package route

import (
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/server/call"
)

// Table says who answers a call.
type Table struct {
	// Foreign returns the handler of a group-version that another server serves, or nil. It goes before everything else.
	Foreign func(schema.GroupVersion) call.Handler
	// Groups are group-versions that are not answered from the store.
	Groups map[schema.GroupVersion]call.Handler
	// Virtual are resources that are not stored, of group-versions that are.
	Virtual map[schema.GroupVersionResource]call.Handler
	// Resources answers everything else below a group-version.
	Resources call.Handler
	// Paths are exact paths outside resources, and where they end in "/" what lies below them too, whatever the method.
	Paths map[string]call.Handler
	// Documents answers every other path.
	Documents call.Handler
}

// Serve hands a call to its handler.
func (t *Table) Serve(c *call.Call) error {
	if !c.Target.IsResource {
		if gv, ok := listed(c.R.URL.Path); ok {
			if h := t.Foreign(gv); h != nil {
				return h(c)
			}
		}
		return t.path(c.R.URL.Path)(c)
	}
	if h := t.Foreign(c.Target.GV()); h != nil {
		return h(c)
	}
	if h := t.Groups[c.Target.GV()]; h != nil {
		return h(c)
	}
	if h := t.Virtual[c.Target.GV().WithResource(c.Target.Resource)]; h != nil {
		return h(c)
	}
	return t.Resources(c)
}

// listed returns the group-version whose list of resources is at path.
func listed(path string) (gv schema.GroupVersion, ok bool) {
	root, rest, _ := strings.Cut(strings.Trim(path, "/"), "/")
	switch root {
	case "api":
		gv.Version = rest
	case "apis":
		gv.Group, gv.Version, _ = strings.Cut(rest, "/")
	}
	return gv, gv.Version != "" && !strings.Contains(gv.Version, "/")
}

// path is the handler of the longest entry that path matches.
func (t *Table) path(path string) call.Handler {
	best := ""
	for p := range t.Paths {
		if (path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p)) && len(p) > len(best) {
			best = p
		}
	}
	if best == "" {
		return t.Documents
	}
	return t.Paths[best]
}

// List returns the paths of the table, in order.
func (t *Table) List() []string {
	var out []string
	for p := range t.Paths {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// Reading returns a Handler for an http.Handler that answers GET and HEAD alone.
func Reading(h http.Handler) call.Handler {
	return func(c *call.Call) error {
		if c.R.Method != http.MethodGet && c.R.Method != http.MethodHead {
			return call.ErrMethod(c.Target)
		}
		h.ServeHTTP(c.W, c.R)
		return nil
	}
}
