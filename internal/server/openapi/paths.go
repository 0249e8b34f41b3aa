package openapi

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"reflect"

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
	path  string
	named bool // the path names one object
	verbs []string
	kind  kind // what it exchanges
	res   *api.Resource
}

// routes are the paths of group-version gv.
func routes(resources []*api.Resource, reviews []discovery.Review, gv schema.GroupVersion) []route {
	root := "/apis/" + gv.String()
	if gv.Group == "" {
		root = "/api/" + gv.Version
	}
	var out []route
	for _, r := range resources {
		if r.GroupVersion() != gv && !slices.Contains(r.Versions, gv) {
			continue
		}
		out = append(out, resourceRoutes(root, r, gv)...)
	}
	for _, r := range reviews {
		if r.GroupVersion() != gv {
			continue
		}
		p := root + "/" + r.Plural
		if r.Namespaced {
			p = root + "/namespaces/{namespace}/" + r.Plural
		}
		out = append(out, route{path: p, verbs: []string{"create"}, kind: kind{r.GroupVersionKind}})
	}
	return out
}

func resourceRoutes(root string, r *api.Resource, gv schema.GroupVersion) []route {
	verbs := r.Verbs
	if verbs == nil {
		verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update"}
	}
	only := func(some ...string) []string {
		var out []string
		for _, v := range some {
			if slices.Contains(verbs, v) {
				out = append(out, v)
			}
		}
		return out
	}
	k := kind{gv.WithKind(r.Kind)}
	base := root + "/" + r.Plural
	var out []route
	if r.Namespaced {
		out = append(out, route{path: base, verbs: only("list"), kind: k, res: r})
		base = root + "/namespaces/{namespace}/" + r.Plural
	}
	out = append(out,
		route{path: base, verbs: only("list", "create", "deletecollection"), kind: k, res: r},
		route{path: base + "/{name}", named: true, verbs: only("get", "update", "patch", "delete"), kind: k, res: r})
	if gv != r.GroupVersion() {
		return out
	}
	if r.Status {
		out = append(out, route{path: base + "/{name}/status", named: true, verbs: []string{"get", "patch", "update"}, kind: k, res: r})
	}
	if r.Scale != nil {
		scale := kind{schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}}
		out = append(out, route{path: base + "/{name}/scale", named: true, verbs: []string{"get", "patch", "update"}, kind: scale, res: r})
	}
	for _, s := range r.Subresources {
		out = append(out, route{path: base + "/{name}/" + s.Name, named: true, verbs: s.Verbs, kind: kind{s.Kind}, res: r})
	}
	return out
}

var methods = map[string]string{"get": "get", "list": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete", "deletecollection": "delete"}

// item makes the path item of rt.
func (b *builder) item(rt route) object {
	item := object{}
	for _, verb := range rt.verbs {
		method, ok := methods[verb]
		if !ok || item[method] != nil {
			continue
		}
		item[method] = b.operation(rt, verb)
	}
	var params []any
	if rt.named {
		params = append(params, b.parameter("name", "path", "string", "name of the "+rt.kind.Kind))
	}
	if strings.Contains(rt.path, "{namespace}") {
		params = append(params, b.parameter("namespace", "path", "string", "object name and auth scope, such as for teams and projects"))
	}
	item["parameters"] = append(params, b.parameter("pretty", "query", "string", "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."))
	return item
}

func (b *builder) operation(rt route, verb string) object {
	group := rt.kind.Group
	if group == "" {
		group = "core"
	}
	op := object{
		"operationId":                     operationID(rt, verb),
		"x-kubernetes-action":             verb,
		"x-kubernetes-group-version-kind": rt.kind.extension(),
	}
	var params []any
	for _, p := range parametersOf(verb) {
		params = append(params, b.parameter(p.name, "query", p.typ, p.doc))
	}
	answer := b.kindRef(rt.kind)
	if verb == "list" {
		answer = b.kindRef(kind{rt.kind.GroupVersion().WithKind(rt.kind.Kind + "List")})
	}
	var body object
	consumes := []any{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	switch verb {
	case "create", "update":
		body = b.kindRef(rt.kind)
	case "patch":
		body = b.refTo(reflect.TypeFor[metav1.Patch]())
		consumes = []any{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/apply-patch+cbor"}
	case "delete", "deletecollection":
		body, answer = b.refTo(reflect.TypeFor[metav1.DeleteOptions]()), b.refTo(reflect.TypeFor[metav1.Status]())
	}
	if b.v3 {
		op["responses"] = object{"200": object{"description": "OK", "content": contentOf([]any{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}, answer)}}
		if body != nil {
			op["requestBody"] = object{"content": contentOf(consumes, body)}
		}
	} else {
		op["responses"] = object{"200": object{"description": "OK", "schema": answer}}
		op["consumes"], op["produces"] = consumes, []any{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
		if body != nil {
			params = append(params, object{"name": "body", "in": "body", "required": verb != "delete" && verb != "deletecollection", "schema": body})
		}
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	return op
}

// operationID is unique within a document: verb, group-version and path.
func operationID(rt route, verb string) string {
	var id strings.Builder
	id.WriteString(verb)
	for part := range strings.SplitSeq(rt.path, "/") {
		part = strings.Trim(part, "{}")
		for word := range strings.FieldsFuncSeq(part, func(c rune) bool { return c == '.' || c == '-' }) {
			id.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return id.String()
}

func contentOf(types []any, s object) object {
	out := object{}
	for _, t := range types {
		out[t.(string)] = object{"schema": s}
	}
	return out
}

// kindRef refers to a kind's schema; options that are only query parameters have none worth sending.
func (b *builder) kindRef(k kind) object {
	if t := typeOf(k); t != nil {
		return b.refTo(t)
	}
	return object{"type": "string"}
}

func (b *builder) parameter(name, in, typ, doc string) object {
	p := object{"name": name, "in": in, "description": doc}
	if in == "path" {
		p["required"] = true
	}
	if b.v3 {
		p["schema"] = object{"type": typ, "uniqueItems": true}
	} else {
		p["type"], p["uniqueItems"] = typ, true
	}
	return p
}

type parameter struct{ name, typ, doc string }

// parametersOf are the query parameters of a verb, described as the options types describe them.
func parametersOf(verb string) []parameter {
	switch verb {
	case "create":
		return describe(metav1.CreateOptions{}, "dryRun", "fieldManager", "fieldValidation")
	case "update":
		return describe(metav1.UpdateOptions{}, "dryRun", "fieldManager", "fieldValidation")
	case "patch":
		return describe(metav1.PatchOptions{}, "dryRun", "fieldManager", "fieldValidation", "force")
	case "delete":
		return describe(metav1.DeleteOptions{}, "dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
	case "list", "deletecollection":
		return describe(metav1.ListOptions{}, "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
			"resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch")
	}
	return nil
}

func describe(options interface{ SwaggerDoc() map[string]string }, names ...string) []parameter {
	docs := options.SwaggerDoc()
	var out []parameter
	for _, n := range names {
		typ := "string"
		switch n {
		case "force", "orphanDependents", "allowWatchBookmarks", "sendInitialEvents", "watch":
			typ = "boolean"
		case "gracePeriodSeconds", "limit", "timeoutSeconds":
			typ = "integer"
		}
		out = append(out, parameter{n, typ, docs[n]})
	}
	return out
}
