package verbs

import (
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
)

// resolve finds the resource and checks that scope, subresource and verb exist. Res is set only if they do: metrics trust
// it.
func resolve(catalog *api.Catalog, t *call.Target) error {
	err := find(catalog, t)
	if err != nil {
		t.Res = nil
	}
	return err
}

func find(catalog *api.Catalog, t *call.Target) error {
	res, ok := catalog.Find(t.GV().WithResource(t.Resource))
	if !ok {
		return call.ErrNoPath()
	}
	t.Res = res
	switch {
	case t.Resource == "namespaces":
		// A namespace's own rights are those within it; its key has none.
	case !res.Namespaced && t.Namespace != "":
		return call.ErrNoPath()
	case res.Namespaced && t.Namespace == "" && t.Name != "":
		return call.ErrNoPath()
	}
	if t.Subresource != "" {
		return resolveSubresource(t)
	}
	if t.Rest != "" {
		return call.ErrNoPath()
	}
	if !allowed(res.Verbs, t.Verb) || (t.Verb == "create" && t.Name != "") ||
		(t.Verb == "create" && res.Namespaced && t.Namespace == "") || ((t.Verb == "update" || t.Verb == "patch") && t.Name == "") {
		return call.ErrMethod(t)
	}
	return nil
}

func resolveSubresource(t *call.Target) error {
	sub, ok := t.Res.Subresource(t.Subresource)
	if !ok || (t.Rest != "" && !sub.Open) {
		return call.ErrNoPath()
	}
	// What a proxied pod does with OPTIONS is its own business; discovery does not list it.
	if !allowed(sub.Verbs, t.Verb) && (!sub.Open || t.Verb != "options") {
		return call.ErrMethod(t)
	}
	return nil
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
