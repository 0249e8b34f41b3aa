package server

import (
	"net/http"
	"strings"

	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/connect"
)

// nodeRight reports whether a request for a node's proxy is allowed by a right that is narrower than nodes/proxy: nodes/stats,
// nodes/metrics and so on, which a kubelet accepts for the same paths (KEP-2862). It changes nothing of a.
func (x *exchange) nodeRight(a *authz.Attributes) bool {
	if a.Group != "" || a.Resource != "nodes" || a.Subresource != "proxy" || x.r.Method != http.MethodGet {
		return false
	}
	narrow := nodeSubresource(x.t.Rest)
	if narrow == "" {
		return false
	}
	b := *a
	b.Subresource = narrow
	b.Name = strings.TrimSuffix(b.Name, ":"+connect.KubeletPort)
	d, _, err := x.s.cfg.Authorizer.Authorize(x.r.Context(), &b)
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
