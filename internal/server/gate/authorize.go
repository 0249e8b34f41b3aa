package gate

import (
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/fields"

	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
)

// authorize asks whether the user may do this.
func (g *Gate) authorize(c *call.Call) error {
	a := attributes(c)
	if g.nodeRight(c, a) {
		return nil
	}
	return authz.Check(c.R.Context(), g.cfg.Authorizer, a)
}

// attributes are what has to be authorized for a request. Connecting to a container is creating something in it, whatever the HTTP
// method that the protocol needs; what subresources of other API servers mean is for them to say.
func attributes(c *call.Call) *authz.Attributes {
	a := authz.AttributesOf(&c.Target.Info)
	switch {
	case c.Target.Group == "" && (c.Target.Subresource == "exec" || c.Target.Subresource == "attach" || c.Target.Subresource == "portforward"):
		a.Verb = "create"
	case a.Verb == "list" || a.Verb == "watch" || a.Verb == "deletecollection":
		if sel, err := fields.ParseSelector(c.Query.Get("fieldSelector")); err == nil {
			a.Fields = sel
			if name, ok := sel.RequiresExactMatch("metadata.name"); ok && a.Name == "" {
				a.Name = name
			}
		}
	}
	return a
}

// nodeRight reports whether a request for a node's proxy is allowed by a right that is narrower than nodes/proxy: nodes/stats,
// nodes/metrics and so on, which a kubelet accepts for the same paths (KEP-2862). It changes nothing of a.
func (g *Gate) nodeRight(c *call.Call, a *authz.Attributes) bool {
	if a.Group != "" || a.Resource != "nodes" || a.Subresource != "proxy" || c.R.Method != http.MethodGet {
		return false
	}
	narrow := nodeSubresource(c.Target.Rest)
	if narrow == "" {
		return false
	}
	b := *a
	b.Subresource = narrow
	b.Name = strings.TrimSuffix(b.Name, ":"+call.KubeletPort)
	d, _, err := g.cfg.Authorizer.Authorize(c.R.Context(), &b)
	return err == nil && d == authz.Allow
}

// nodeSubresource is what a kubelet calls a path of its own when it asks who may read it
// (https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/#kubelet-authorization).
func nodeSubresource(path string) string {
	root, _, _ := strings.Cut(path, "/")
	switch root {
	case "stats", "metrics", "pods", "healthz", "configz":
		return root
	case "containerLogs":
		return "log"
	}
	return ""
}
