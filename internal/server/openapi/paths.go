package openapi

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/discovery"
)

// kind names what a path exchanges.
type kind struct{ schema.GroupVersionKind }

func (k kind) extension() object {
	return object{"group": k.Group, "version": k.Version, "kind": k.Kind}
}

// route is one path with the operations of its verbs.
type route struct {
	gv         schema.GroupVersion
	path       string
	verbs      []string
	kind       kind   // what it exchanges
	of         string // the kind of the resource
	sub        string // the subresource, capitalized
	namespaced bool   // the path names a namespace
	all        bool   // the path is of all namespaces of what has namespaces
	named      bool   // the path names one object
	deep       bool   // the path goes on behind the subresource
	watchable  bool   // a list can be watched
	deleted    bool   // a deletion is answered with the object
	custom     bool   // the resource has no Go type
	listKind   string // where it is not the kind's name and "List"
}

// list is the kind of lists of what the route exchanges.
func (rt *route) list() kind {
	name := rt.listKind
	if name == "" {
		name = rt.kind.Kind + "List"
	}
	return kind{rt.kind.GroupVersion().WithKind(name)}
}

// all verbs of a resource that names none.
var usual = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// routes are the paths of group-version gv.
func routes(resources []*api.Resource, reviews []discovery.Review, gv schema.GroupVersion) []route {
	root := root(gv)
	var out []route
	for _, r := range resources {
		if r.GroupVersion() == gv || slices.Contains(r.Versions, gv) {
			verbs := r.Verbs
			if verbs == nil {
				verbs = usual
			}
			// Of namespaces Kubernetes documents a Status although it answers with the object.
			deleted := r.AnswersDeleted && r != api.Namespaces
			own := resourceRoutes(gv, r.Plural, r.Kind, r.Namespaced, verbs, deleted)
			for i := range own {
				own[i].custom, own[i].listKind = r.Unstructured, r.ListKind
			}
			out = append(out, own...)
			if r.Group == gv.Group { // see discovery
				out = append(out, subresourceRoutes(gv, r)...)
			}
		}
	}
	for _, r := range reviews {
		if r.GroupVersion() == gv {
			verbs := r.Verbs
			if verbs == nil {
				verbs = []string{"create"}
			}
			out = append(out, resourceRoutes(gv, r.Plural, r.Kind, r.Namespaced, verbs, false)...)
		}
	}
	return append(out, route{gv: gv, path: root + "/", verbs: []string{"resources"}})
}

func root(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.String()
}

// resourceRoutes are the paths of a resource itself: of all, of those in a namespace, of one, and the older ones of watches.
func resourceRoutes(gv schema.GroupVersion, plural, of string, namespaced bool, verbs []string, deleted bool) []route {
	only := func(some ...string) []string {
		return slices.DeleteFunc(some, func(v string) bool { return !slices.Contains(verbs, v) })
	}
	root, below := root(gv), "/"+plural
	if namespaced {
		below = "/namespaces/{namespace}/" + plural
	}
	watchable := slices.Contains(verbs, "watch")
	base := route{gv: gv, kind: kind{gv.WithKind(of)}, of: of, watchable: watchable, deleted: deleted}
	with := func(path string, verbs []string, set func(*route)) route {
		r := base
		r.path, r.verbs = path, verbs
		set(&r)
		return r
	}
	var out []route
	if namespaced {
		out = append(out, with(root+"/"+plural, only("list"), func(r *route) { r.all = true }))
	}
	out = append(out,
		with(root+below, only("list", "create", "deletecollection"), func(r *route) { r.namespaced = namespaced }),
		with(root+below+"/{name}", only("get", "update", "patch", "delete"), func(r *route) { r.namespaced, r.named = namespaced, true }))
	if !watchable {
		return out
	}
	if namespaced {
		out = append(out, with(root+"/watch/"+plural, []string{"watchlist"}, func(r *route) { r.all = true }))
	}
	return append(out,
		with(root+"/watch"+below, []string{"watchlist"}, func(r *route) { r.namespaced = namespaced }),
		with(root+"/watch"+below+"/{name}", []string{"watch"}, func(r *route) { r.namespaced, r.named = namespaced, true }))
}

// subresourceRoutes are the paths of a resource's subresources.
func subresourceRoutes(gv schema.GroupVersion, r *api.Resource) []route {
	below := root(gv) + "/" + r.Plural + "/{name}/"
	if r.Namespaced {
		below = root(gv) + "/namespaces/{namespace}/" + r.Plural + "/{name}/"
	}
	subs := slices.Clone(r.Subresources)
	for _, name := range []string{"status", "scale"} {
		if s, ok := r.Subresource(name); ok {
			subs = append(subs, s)
		}
	}
	var out []route
	for _, s := range subs {
		if s.Kind == r.GroupVersionKind {
			s.Kind = gv.WithKind(r.Kind)
		}
		rt := route{
			gv: gv, path: below + s.Name, verbs: s.Verbs, kind: kind{s.Kind}, of: r.Kind, sub: strings.ToUpper(s.Name[:1]) + s.Name[1:],
			namespaced: r.Namespaced, named: true,
		}
		rt.custom = r.Unstructured
		if strings.HasSuffix(s.Kind.Kind, "Options") { // what connects: any method that may reach it
			rt.verbs = connects(s)
		}
		out = append(out, rt)
		if s.Open {
			rt.path, rt.deep = rt.path+"/{path}", true
			out = append(out, rt)
		}
	}
	return out
}

// connects are the HTTP methods of a subresource that connects.
func connects(s api.Subresource) []string {
	if s.Open {
		return []string{"connect delete", "connect get", "connect head", "connect options", "connect patch", "connect post", "connect put"}
	}
	return []string{"connect get", "connect post"}
}

// item makes the path item of rt.
func (b *builder) item(rt route) object {
	item := object{}
	for _, verb := range rt.verbs {
		if op, ok := operationOf(verb); ok {
			item[op.method] = b.operation(rt, verb, op)
		}
	}
	params := []any{}
	add := func(p ...parameter) {
		for _, p := range p {
			params = append(params, b.parameter(p))
		}
	}
	if rt.named {
		name := "name of the " + rt.kind.Kind
		add(parameter{"name", "path", "string", name})
	}
	if rt.namespaced {
		add(parameter{"namespace", "path", "string", "object name and auth scope, such as for teams and projects"})
	}
	if rt.deep {
		add(parameter{"path", "path", "string", "path to the resource"})
	}
	switch verb := rt.verbs[0]; {
	case strings.HasPrefix(verb, "connect"):
		add(parametersOf(rt, verb)...)
	case verb == "watch" || verb == "watchlist" || rt.sub == "Log":
		add(parametersOf(rt, verb)...)
		add(pretty)
	case verb != "resources":
		add(pretty)
	}
	if len(params) > 0 {
		item["parameters"] = params
	}
	return item
}
