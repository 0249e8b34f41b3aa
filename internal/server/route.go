package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/request"
)

// target is the place in the API that a request names.
type target struct {
	request.Info
	// Res is nil for paths outside resources and for kinds that are not stored (reviews).
	Res *api.Resource
	// Rest is what follows the subresource: the path to pass on for proxy.
	Rest string
	// OldWatch says that the path had the old /watch/ prefix; a name then narrows the watch to one object.
	OldWatch bool
}

// gv is the group-version the client asked in.
func (t *target) gv() schema.GroupVersion {
	return schema.GroupVersion{Group: t.Group, Version: t.Version}
}

// kind is the kind of the stored resource in the version the client asked in.
func (t *target) kind() schema.GroupVersionKind { return t.gv().WithKind(t.Res.Kind) }

// listKind is the kind of its lists.
func (t *target) listKind() schema.GroupVersionKind { return t.gv().WithKind(t.Res.Kind + "List") }

// foreign says that objects have to be converted from the version in which they are stored.
func (t *target) foreign() bool { return t.gv() != t.Res.GroupVersion() }

// key is the object's key in its table. A namespace's request belongs to that namespace, but its key has none.
func (t *target) key() api.Key {
	if !t.Res.Namespaced {
		return api.Key{Name: t.Name}
	}
	return api.Key{Namespace: t.Namespace, Name: t.Name}
}

func (t *target) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: t.Group, Resource: t.Resource}
}

// parse takes a request apart, as docs/reference/using-api/api-concepts describes the paths. ok is false for paths that
// are not below a group-version.
func parse(method, path string, query url.Values) (t *target, ok bool) {
	t = &target{Info: request.Info{Path: path, Verb: strings.ToLower(method)}}
	parts := split(path)
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		t.Version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		t.Group, t.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return t, false
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
	return t, true
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

func (t *target) verb(method string, query url.Values) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		switch {
		case t.OldWatch:
			return "watch"
		case t.Name != "":
			return "get"
		case truth(query.Get("watch")):
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

// truth reads a boolean query parameter as Kubernetes does: present without a value is true.
func truth(v string) bool {
	return v == "true" || v == "1" || v == "True" || v == "t" || v == "TRUE" || v == "T"
}

// resolve finds the resource and checks that scope, subresource and verb exist. Res is set only if they do: metrics trust
// it.
func (t *target) resolve() error {
	err := t.find()
	if err != nil {
		t.Res = nil
	}
	return err
}

func (t *target) find() error {
	res, ok := api.Find(t.gv().WithResource(t.Resource))
	if !ok {
		return errNoPath()
	}
	t.Res = res
	switch {
	case t.Resource == "namespaces":
		// A namespace's own rights are those within it; its key has none.
	case !res.Namespaced && t.Namespace != "":
		return errNoPath()
	case res.Namespaced && t.Namespace == "" && t.Name != "":
		return errNoPath()
	}
	if t.Subresource != "" {
		return t.resolveSubresource()
	}
	if t.Rest != "" {
		return errNoPath()
	}
	if !allowed(res.Verbs, t.Verb) || (t.Verb == "create" && t.Name != "") ||
		(t.Verb == "create" && res.Namespaced && t.Namespace == "") || ((t.Verb == "update" || t.Verb == "patch") && t.Name == "") {
		return errMethod(t)
	}
	return nil
}

func (t *target) resolveSubresource() error {
	if t.Subresource != "proxy" && t.Rest != "" {
		return errNoPath()
	}
	verbs, ok := subresourceVerbs(t.Res, t.Subresource)
	if !ok {
		return errNoPath()
	}
	// What a proxied pod does with OPTIONS is its own business; discovery does not list it.
	if !allowed(verbs, t.Verb) && (t.Subresource != "proxy" || t.Verb != "options") {
		return errMethod(t)
	}
	return nil
}

// subresourceVerbs returns what may be done with a subresource.
func subresourceVerbs(res *api.Resource, name string) ([]string, bool) {
	switch {
	case name == "proxy" && res == api.Nodes:
		return []string{"get"}, true
	case name == "proxy" && (res == api.Pods || res == api.Services):
		return []string{"create", "delete", "get", "patch", "update"}, true
	case name == "status" && res.Status, name == "scale" && res.Scale != nil:
		return []string{"get", "patch", "update"}, true
	}
	for _, s := range res.Subresources {
		if s.Name == name {
			return s.Verbs, true
		}
	}
	return nil, false
}

// allowed reports whether verbs, nil for the usual ones, contain verb.
func allowed(verbs []string, verb string) bool {
	if verbs == nil {
		switch verb {
		case "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch":
			return true
		}
		return false
	}
	for _, v := range verbs {
		if v == verb {
			return true
		}
	}
	return false
}

// errNoPath is the answer for paths that the server does not have.
func errNoPath() error {
	err := apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, true)
	err.ErrStatus.Message = "the server could not find the requested resource"
	err.ErrStatus.Details = nil
	return err
}

// errMethod is the answer for verbs that a resource does not have.
func errMethod(t *target) error {
	resource := t.Resource
	if t.Subresource != "" {
		resource += "/" + t.Subresource
	}
	err := apierrors.NewMethodNotSupported(schema.GroupResource{Group: t.Group, Resource: t.Resource}, t.Verb)
	err.ErrStatus.Message = fmt.Sprintf("%s is not supported on resources of kind %q", t.Verb, (schema.GroupResource{Group: t.Group, Resource: resource}).String())
	return err
}
