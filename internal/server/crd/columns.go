package crd

import (
	"bytes"
	"fmt"
	"reflect"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/jsonpath"

	"github.com/knarr-io/knarr/internal/api"
)

// columnsOf returns the columns that a version declares or, where there are none, the age.
func columnsOf(v *apiextensionsv1.CustomResourceDefinitionVersion) []apiextensionsv1.CustomResourceColumnDefinition {
	if len(v.AdditionalPrinterColumns) > 0 {
		return v.AdditionalPrinterColumns
	}
	return []apiextensionsv1.CustomResourceColumnDefinition{{
		Name: "Age", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"], JSONPath: ".metadata.creationTimestamp",
	}}
}

// headers returns what kubectl get shows: the name, then the columns. One whose path cannot be read ends the list, as in Kubernetes.
func headers(columns []apiextensionsv1.CustomResourceColumnDefinition) []metav1.TableColumnDefinition {
	out := []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}}
	for _, c := range columns {
		if _, err := pathOf(c.JSONPath); err != nil {
			break
		}
		doc := c.Description
		if doc == "" {
			doc = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		out = append(out, metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: doc, Priority: c.Priority})
	}
	return out
}

// pathOf reads a JSON path of a definition.
func pathOf(text string) (*jsonpath.JSONPath, error) {
	p := jsonpath.New("column").AllowMissingKeys(true)
	if err := p.Parse("{" + text + "}"); err != nil {
		return nil, fmt.Errorf("reading the path %q: %w", text, err)
	}
	return p, nil
}

// cells returns a function that returns the cells of an object below headers of the same columns.
func cells(columns []apiextensionsv1.CustomResourceColumnDefinition) func(obj api.Object) []any {
	var paths []*jsonpath.JSONPath
	for _, c := range columns {
		p, err := pathOf(c.JSONPath)
		if err != nil {
			break
		}
		paths = append(paths, p)
	}
	return func(obj api.Object) []any {
		content := obj.(*unstructured.Unstructured).Object
		out := append(make([]any, 0, 1+len(paths)), any(obj.GetName()))
		for i, p := range paths {
			out = append(out, cell(p, columns[i].Type, content))
		}
		return out
	}
}

// cell returns the value at a path as a column of a type shows it; nil where there is none.
func cell(p *jsonpath.JSONPath, typ string, content map[string]any) any {
	results, err := p.FindResults(content)
	if err != nil || len(results) == 0 || len(results[0]) == 0 {
		return nil
	}
	value := results[0][0].Interface()
	switch typ {
	case "string":
		var b bytes.Buffer
		if err := p.PrintResults(&b, []reflect.Value{reflect.ValueOf(value)}); err != nil {
			return nil
		}
		return b.String()
	case "integer":
		switch n := value.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		}
	case "number":
		switch n := value.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		}
	case "boolean":
		if b, ok := value.(bool); ok {
			return b
		}
	case "date":
		text, ok := value.(string)
		if !ok {
			return nil
		}
		var t metav1.Time
		if err := t.UnmarshalQueryParameter(text); err != nil {
			return "<invalid>"
		}
		return metatable.ConvertToHumanReadableDateType(t)
	}
	return nil
}
