package openapi

import (
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// operation is what a verb is in the documents.
type operation struct {
	method string // HTTP's
	id     string // what its operationId begins with
	action string // Kubernetes' name of it
	codes  []string
}

// operationOf returns what a verb of a route is.
func operationOf(verb string) (operation, bool) {
	switch verb {
	case "get":
		return operation{"get", "read", "get", []string{"200"}}, true
	case "list":
		return operation{"get", "list", "list", []string{"200"}}, true
	case "watch", "watchlist":
		return operation{"get", "watch", verb, []string{"200"}}, true
	case "create":
		return operation{"post", "create", "post", []string{"200", "201", "202"}}, true
	case "update":
		return operation{"put", "replace", "put", []string{"200", "201"}}, true
	case "patch":
		return operation{"patch", "patch", "patch", []string{"200", "201"}}, true
	case "delete":
		return operation{"delete", "delete", "delete", []string{"200", "202"}}, true
	case "deletecollection":
		return operation{"delete", "delete", "deletecollection", []string{"200"}}, true
	case "resources":
		return operation{"get", "get", "", []string{"200"}}, true
	}
	if method, ok := strings.CutPrefix(verb, "connect "); ok {
		return operation{method, "connect", "connect", []string{"200"}}, true
	}
	return operation{}, false
}

// meanings are the responses' descriptions by code.
var meanings = map[string]string{"200": "OK", "201": "Created", "202": "Accepted", "401": "Unauthorized"}

// Types of content, in Kubernetes' order.
var (
	whole   = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"}
	streams = []string{"application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq"}
	patches = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
		"application/apply-patch+yaml", "application/apply-patch+cbor"}
)

// customPatches are the types of patches that resources without a Go type take.
var customPatches = []string{"application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml", "application/apply-patch+cbor"}

// operation makes one operation of a path.
func (b *builder) operation(rt route, verb string, is operation) object {
	op := object{
		"operationId": operationID(rt, verb, is),
		"description": description(rt, verb),
		"tags":        []any{tag(rt.gv)},
	}
	if verb == "resources" {
		b.answers(op, is.codes, whole, b.refTo(reflect.TypeFor[metav1.APIResourceList]()))
		if !b.v3 {
			op["consumes"] = op["produces"]
		}
		return op
	}
	op["x-kubernetes-action"], op["x-kubernetes-group-version-kind"] = is.action, rt.kind.extension()
	var params []any
	if strings.HasPrefix(verb, "connect") { // its parameters are the path's
		b.answers(op, is.codes, []string{"*/*"}, object{"type": "string"})
		return op
	}
	if verb != "watch" && verb != "watchlist" && rt.sub != "Log" { // theirs too
		for _, p := range parametersOf(rt, verb) {
			params = append(params, b.parameter(p))
		}
	}
	answer, types := b.answerOf(rt, verb)
	b.answers(op, is.codes, types, answer)
	if body, required, consumes := b.bodyOf(rt, verb); body != nil {
		params = b.body(op, params, body, required, consumes)
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	return op
}

// answerOf is the schema of an operation's answer and the types in which there is one.
func (b *builder) answerOf(rt route, verb string) (object, []string) {
	switch {
	case rt.sub == "Log":
		return object{"type": "string"}, append([]string{"text/plain"}, whole...)
	case verb == "list":
		return b.kindRef(rt.list()), append(append([]string{}, whole...), streams...)
	case verb == "watch" || verb == "watchlist":
		return b.refTo(reflect.TypeFor[metav1.WatchEvent]()), append(append([]string{}, whole...), streams...)
	case verb == "deletecollection" || verb == "delete" && !rt.deleted:
		return b.refTo(reflect.TypeFor[metav1.Status]()), whole
	}
	return b.kindRef(rt.kind), whole
}

// bodyOf is the schema of what a verb takes, nil where that is nothing.
func (b *builder) bodyOf(rt route, verb string) (body object, required bool, consumes []string) {
	switch verb {
	case "create", "update":
		return b.kindRef(rt.kind), true, []string{"*/*"}
	case "patch":
		if rt.custom {
			return b.refTo(reflect.TypeFor[metav1.Patch]()), true, customPatches
		}
		return b.refTo(reflect.TypeFor[metav1.Patch]()), true, patches
	case "delete", "deletecollection":
		return b.refTo(reflect.TypeFor[metav1.DeleteOptions]()), false, []string{"*/*"}
	}
	return nil, false, nil
}

// answers says in op what the server answers.
func (b *builder) answers(op object, codes, types []string, answer object) {
	responses := object{"401": object{"description": meanings["401"]}}
	for _, code := range codes {
		r := object{"description": meanings[code]}
		if b.v3 {
			r["content"] = contentOf(types, answer)
		} else {
			r["schema"] = answer
		}
		responses[code] = r
	}
	op["responses"] = responses
	if !b.v3 {
		op["consumes"], op["produces"], op["schemes"] = []any{"*/*"}, anyOf(types), []any{"https"}
	}
}

// body says in op, or in its parameters, what the server takes.
func (b *builder) body(op object, params []any, body object, required bool, consumes []string) []any {
	if b.v3 {
		r := object{"content": contentOf(consumes, body)}
		if required {
			r["required"] = true
		}
		op["requestBody"] = r
		return params
	}
	op["consumes"] = anyOf(consumes)
	p := object{"name": "body", "in": "body", "schema": body}
	if required {
		p["required"] = true
	}
	return append(params, p)
}

func anyOf(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func contentOf(types []string, s object) object {
	out := object{}
	for _, t := range types {
		out[t] = object{"schema": s}
	}
	return out
}

// kindRef refers to a kind's schema; options that are only query parameters have none worth sending.
func (b *builder) kindRef(k kind) object {
	if t := typeOf(k); t != nil {
		return b.refTo(t)
	}
	if name := b.custom[k]; name != "" {
		return b.ref(name)
	}
	return object{"type": "string"}
}

// groupName is a group as operationIds write it: CoreV1, RbacAuthorizationV1.
func groupName(gv schema.GroupVersion) string {
	group := strings.TrimSuffix(gv.Group, ".k8s.io")
	if group == "" {
		group = "core"
	}
	var b strings.Builder
	for part := range strings.SplitSeq(group, ".") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

// tag groups the operations of a group-version in generated clients.
func tag(gv schema.GroupVersion) string {
	g := groupName(gv)
	return strings.ToLower(g[:1]) + g[1:] + "_" + gv.Version
}

// operationID is what generated clients call their methods after: verb, group-version, scope, kind and subresource.
func operationID(rt route, verb string, is operation) string {
	var b strings.Builder
	b.WriteString(is.id + groupName(rt.gv) + strings.ToUpper(rt.gv.Version[:1]) + rt.gv.Version[1:])
	if verb == "resources" {
		return b.String() + "APIResources"
	}
	if method, ok := strings.CutPrefix(verb, "connect "); ok {
		b.WriteString(strings.ToUpper(method[:1]) + method[1:])
	}
	if verb == "deletecollection" {
		b.WriteString("Collection")
	}
	if rt.namespaced {
		b.WriteString("Namespaced")
	}
	b.WriteString(rt.of + rt.sub)
	if verb == "watchlist" {
		b.WriteString("List")
	}
	if rt.all {
		b.WriteString("ForAllNamespaces")
	}
	if rt.deep {
		b.WriteString("WithPath")
	}
	return b.String()
}

// description says in a sentence what an operation does.
func description(rt route, verb string) string {
	of := rt.of
	if rt.sub != "" {
		of = strings.ToLower(rt.sub) + " of the specified " + rt.of
	} else if rt.named {
		of = "the specified " + rt.of
	}
	article := "a "
	if rt.of == "Endpoints" { // many, as the name says
		article = ""
	} else if strings.ContainsAny(rt.of[:min(1, len(rt.of))], "AEIOU") {
		article = "an "
	}
	switch verb {
	case "resources":
		return "get available resources"
	case "get":
		return "read " + of
	case "update":
		return "replace " + of
	case "patch":
		return "partially update " + of
	case "create":
		if rt.sub != "" {
			return "create " + strings.ToLower(rt.sub) + " of " + article + rt.of
		}
		return "create " + article + rt.of
	case "delete":
		return "delete " + article + rt.of
	case "deletecollection":
		return "delete collection of " + rt.of
	case "list":
		if !rt.watchable {
			return "list objects of kind " + rt.of
		}
		return "list or watch objects of kind " + rt.of
	case "watch":
		return "watch changes to an object of kind " + rt.of + ". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
	case "watchlist":
		return "watch individual changes to a list of " + rt.of + ". deprecated: use the 'watch' parameter with a list operation instead."
	}
	method, _ := strings.CutPrefix(verb, "connect ")
	return "connect " + strings.ToUpper(method) + " requests to " + strings.ToLower(rt.sub) + " of " + rt.of
}
