package crd

import (
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/knarr-io/knarr/internal/api"
)

// selectable returns the names by which field selectors may choose objects of a version, and a function that returns an object's
// values. nil where there are none.
func selectable(declared []apiextensionsv1.SelectableField) ([]string, func(obj api.Object) fields.Set) {
	if len(declared) == 0 {
		return nil, nil
	}
	names := make([]string, len(declared))
	for i, f := range declared {
		names[i] = strings.TrimPrefix(f.JSONPath, ".")
	}
	return names, func(obj api.Object) fields.Set {
		content := obj.(*unstructured.Unstructured).Object
		out := fields.Set{}
		for _, name := range names {
			out[name] = ""
			if value, ok, err := unstructured.NestedFieldNoCopy(content, strings.Split(name, ".")...); err == nil && ok && value != nil {
				out[name] = fmt.Sprint(value)
			}
		}
		return out
	}
}
