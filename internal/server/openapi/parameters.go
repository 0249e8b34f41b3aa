package openapi

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// parameter is one of a path or of an operation.
type parameter struct{ name, in, typ, doc string }

var pretty = parameter{"pretty", "query", "string",
	"If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."}

func (b *builder) parameter(p parameter) object {
	out := object{"name": p.name, "in": p.in, "description": p.doc}
	if p.in == "path" {
		out["required"] = true
	}
	if b.v3 {
		out["schema"] = object{"type": p.typ, "uniqueItems": true}
	} else {
		out["type"], out["uniqueItems"] = p.typ, true
	}
	return out
}

// parametersOf are the query parameters of a verb, described as the options types describe them.
func parametersOf(rt route, verb string) []parameter {
	switch verb {
	case "create":
		return describe(metav1.CreateOptions{}, "dryRun", "fieldManager", "fieldValidation")
	case "update":
		return describe(metav1.UpdateOptions{}, "dryRun", "fieldManager", "fieldValidation")
	case "patch":
		return describe(metav1.PatchOptions{}, "dryRun", "fieldManager", "fieldValidation", "force")
	case "delete":
		return deletion()
	case "list", "watch", "watchlist":
		return describe(metav1.ListOptions{}, "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
			"resourceVersionMatch", "sendInitialEvents", "shardSelector", "timeoutSeconds", "watch")
	case "deletecollection":
		return append(deletion(), describe(metav1.ListOptions{}, "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
			"resourceVersionMatch", "sendInitialEvents", "shardSelector", "timeoutSeconds")...)
	}
	switch {
	case rt.sub == "Log":
		return fieldsOf(corev1.PodLogOptions{})
	case strings.HasPrefix(verb, "connect"):
		if t := typeOf(rt.kind); t != nil {
			return fieldsOf(reflect.Zero(t).Interface().(documented))
		}
	}
	return nil
}

func deletion() []parameter {
	return describe(metav1.DeleteOptions{}, "dryRun", "gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential", "orphanDependents",
		"propagationPolicy")
}

// documented is a type that describes its fields.
type documented interface{ SwaggerDoc() map[string]string }

// describe makes parameters of some fields of options.
func describe(options documented, names ...string) []parameter {
	wanted := map[string]parameter{}
	for _, p := range fieldsOf(options) {
		wanted[p.name] = p
	}
	var out []parameter
	for _, n := range names {
		if p, ok := wanted[n]; ok {
			out = append(out, p)
		}
	}
	return out
}

// fieldsOf makes parameters of all fields of options that fit into a query.
func fieldsOf(options documented) []parameter {
	docs := options.SwaggerDoc()
	var out []parameter
	t := reflect.TypeOf(options)
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		typ := t.Field(i).Type
		if typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		as, ok := queryTypes[typ.Kind()]
		if name != "" && name != "-" && ok {
			out = append(out, parameter{name, "query", as, docs[name]})
		}
	}
	return out
}

var queryTypes = map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean", reflect.Int32: "integer", reflect.Int64: "integer"}
