package call

import (
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/request"
)

// KubeletPort is the port that clients name when they mean a node's agent. Nothing listens there: agents only dial out.
const KubeletPort = "10250"

// Target is the place in the API that a request names.
type Target struct {
	request.Info
	// Res is nil for paths outside resources and for kinds that are not stored (reviews).
	Res *api.Resource
	// Known marks targets that have been found to exist: only their names become labels of metrics.
	Known bool
	// Rest is what follows the subresource: the path to pass on for proxy.
	Rest string
	// OldWatch marks paths with the old /watch/ prefix; a name then narrows the watch to one object.
	OldWatch bool
}

// GV is the group-version the client asked in.
func (t *Target) GV() schema.GroupVersion {
	return schema.GroupVersion{Group: t.Group, Version: t.Version}
}

// Kind is the kind of the stored resource in the version the client asked in.
func (t *Target) Kind() schema.GroupVersionKind { return t.GV().WithKind(t.Res.Kind) }

// ListKind is the kind of its lists.
func (t *Target) ListKind() schema.GroupVersionKind { return t.Res.ListGroupVersionKind(t.GV()) }

// Foreign reports whether objects have to be converted from the version in which they are stored.
func (t *Target) Foreign() bool { return t.GV() != t.Res.GroupVersion() }

// Key is the object's key in its table. A namespace's request belongs to that namespace, but its key has none.
func (t *Target) Key() api.Key {
	if !t.Res.Namespaced {
		return api.Key{Name: t.Name}
	}
	return api.Key{Namespace: t.Namespace, Name: t.Name}
}

// GroupResource is the resource as errors name it.
func (t *Target) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: t.Group, Resource: t.Resource}
}

// Parse takes a request apart, as https://kubernetes.io/docs/reference/using-api/api-concepts describes the paths. IsResource
// is false for paths that are not below a group-version.
func Parse(method, path string, query url.Values) *Target {
	t := &Target{Info: request.Info{Path: path, Verb: strings.ToLower(method)}}
	parts := split(path)
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		t.Version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		t.Group, t.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return t
	}
	t.IsResource = true
	if parts[0] == "watch" && len(parts) > 1 {
		t.OldWatch, parts = true, parts[1:]
	}
	switch {
	case parts[0] == "namespaces" && len(parts) > 2 && !namespaceSubresource(parts):
		t.Namespace, parts = parts[1], parts[2:]
	case parts[0] == "namespaces" && len(parts) > 1:
		t.Namespace = parts[1]
	}
	t.Resource = parts[0]
	if len(parts) > 1 {
		t.Name = parts[1]
	}
	if len(parts) > 2 {
		t.Subresource = parts[2]
	}
	if len(parts) > 3 {
		t.Rest = strings.Join(parts[3:], "/")
	}
	t.Verb = t.verb(method, query)
	return t
}

// namespaceSubresource tells /namespaces/NAME/status and /namespaces/NAME/finalize from /namespaces/NAME/RESOURCE.
func namespaceSubresource(parts []string) bool {
	return len(parts) == 3 && (parts[2] == "status" || parts[2] == "finalize")
}

func split(path string) []string {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

func (t *Target) verb(method string, query url.Values) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		switch {
		case t.OldWatch:
			return "watch"
		case t.Name != "":
			return "get"
		case Truth(query.Get("watch")):
			return "watch"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if t.Name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return strings.ToLower(method)
}

// Truth reports whether a query parameter is true in one of the spellings that Kubernetes takes.
func Truth(v string) bool {
	return v == "true" || v == "1" || v == "True" || v == "t" || v == "TRUE" || v == "T"
}

// Connects reports whether the subresource connects to something: its answers are text, upgraded connections or whatever a pod
// answers, and may take as long as they like.
func (t *Target) Connects() bool {
	switch t.Subresource {
	case "log", "exec", "attach", "portforward", "proxy":
		return true
	}
	return false
}
