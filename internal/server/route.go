package server

import (
	"github.com/knarr-io/knarr/internal/api"
)

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
