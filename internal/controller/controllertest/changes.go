package controllertest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/definition"
)

func (w *watched) resourceOf(obj api.Object) *api.Resource { return w.Served().Now().Of(obj) }

// changes returns the paths of the fields in which after differs from before, but for bookkeeping. Elements of lists stand in them by
// their key, where they have one; other lists are one field.
func changes(before, after api.Object) [][]string {
	var out [][]string
	differ(nil, tree(before), tree(after), func(path []string) {
		if kept(path) {
			out = append(out, slices.Clone(path))
		}
	})
	return out
}

func tree(o api.Object) map[string]any {
	if def, ok := o.(*apiextensionsv1.CustomResourceDefinition); ok {
		whole, err := definition.Whole(def)
		if err != nil {
			panic(err)
		}
		o = whole
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		panic(fmt.Sprintf("%T has no fields: %v", o, err))
	}
	return m
}

func differ(path []string, a, b any, report func([]string)) {
	if reflect.DeepEqual(a, b) {
		return
	}
	x, y := fields(a), fields(b)
	if a == nil && y != nil {
		x = map[string]any{}
	}
	if b == nil && x != nil {
		y = map[string]any{}
	}
	if x == nil || y == nil {
		report(path)
		return
	}
	names := maps.Clone(x)
	maps.Copy(names, y)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		differ(append(slices.Clone(path), name), x[name], y[name], report)
	}
}

// fields returns the parts of v by name: those of a map, or the elements of a list by their key; nil for anything else.
func fields(v any) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		return v
	case []any:
		out := map[string]any{}
		for _, e := range v {
			key := keyOf(e)
			if _, twice := out[key]; key == "" || twice {
				return nil
			}
			out[key] = e
		}
		return out
	}
	return nil
}

// keyOf is what tells an element of a list from the others: itself for a word, its type (conditions), UID (references to owners) or key
// (taints).
func keyOf(e any) string {
	switch e := e.(type) {
	case string:
		return e
	case map[string]any:
		for _, name := range []string{"type", "uid", "key"} {
			if s, ok := e[name].(string); ok {
				return s
			}
		}
	}
	return ""
}
