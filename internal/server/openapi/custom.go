package openapi

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// addCustom adds the schemas of a kind without a Go type and of its lists: what the resource declares, and what all objects have.
func (b *builder) addCustom(r *api.Resource) {
	k := kind{r.GroupVersionKind}
	own := b.customSchema(r)
	own["type"], own["x-kubernetes-group-version-kind"] = "object", []any{k.extension()}
	name := customName(k)
	b.custom[k], b.schemas[name] = name, own

	docs := metav1.TypeMeta{}.SwaggerDoc()
	lists := kind{r.ListGroupVersionKind(r.GroupVersion())}
	listName := customName(lists)
	list := object{
		"type": "object", "description": lists.Kind + " is a list of " + r.Kind, "required": []any{"items"},
		"x-kubernetes-group-version-kind": []any{lists.extension()},
		"properties": object{
			"apiVersion": object{"type": "string", "description": docs["apiVersion"]},
			"kind":       object{"type": "string", "description": docs["kind"]},
			"metadata": b.described(b.refTo(reflect.TypeFor[metav1.ListMeta]()),
				"Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"),
			"items": object{"type": "array", "items": b.ref(name),
				"description": "List of " + r.Plural + ". More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"},
		},
	}
	if fields := selectable(r); fields != nil {
		own[selectableFields], list[selectableFields] = fields, fields
	}
	b.custom[lists], b.schemas[listName] = listName, list
}

// customSchema returns the schema of a kind without a Go type. Where any object is valid it names no fields at all, not even metadata:
// kubectl would take those that it names for all that there may be.
func (b *builder) customSchema(r *api.Resource) object {
	if r.Schema == nil {
		return b.withMeta(object{"x-kubernetes-preserve-unknown-fields": true}, objectMetaDoc)
	}
	declared, err := r.Schema(b.v3)
	switch {
	case err != nil: // it is not worth that nobody can read about the others
		return object{"description": "The schema of this kind cannot be published: " + err.Error()}
	case declared == nil:
		return object{}
	}
	return b.withMeta(b.embedded(declared), objectMetaDoc)
}

const objectMetaDoc = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"

// withMeta returns a schema with what all objects have.
func (b *builder) withMeta(s object, doc string) object {
	s = maps.Clone(s)
	properties, _ := s["properties"].(object)
	if properties = maps.Clone(properties); properties == nil {
		properties = object{}
	}
	docs := metav1.TypeMeta{}.SwaggerDoc()
	properties["apiVersion"] = object{"type": "string", "description": docs["apiVersion"]}
	properties["kind"] = object{"type": "string", "description": docs["kind"]}
	properties["metadata"] = b.described(b.refTo(reflect.TypeFor[metav1.ObjectMeta]()), doc)
	s["properties"] = properties
	return s
}

// embedded returns a schema in which the objects embedded in others (x-kubernetes-embedded-resource) have what all objects have, too.
func (b *builder) embedded(s object) object {
	s = maps.Clone(s)
	if properties, ok := s["properties"].(object); ok {
		properties = maps.Clone(properties)
		for name, p := range properties {
			if p, ok := p.(object); ok {
				properties[name] = b.embeddedField(p)
			}
		}
		s["properties"] = properties
	}
	for _, name := range []string{"items", "additionalProperties"} {
		if of, ok := s[name].(object); ok {
			s[name] = b.embeddedField(of)
		}
	}
	return s
}

// embeddedField is embedded for a schema within another, which may be that of an embedded object itself.
func (b *builder) embeddedField(s object) object {
	s = b.embedded(s)
	if s["x-kubernetes-embedded-resource"] != true || !b.v3 && s["x-kubernetes-preserve-unknown-fields"] == true {
		return s
	}
	s = b.withMeta(s, objectMetaDoc)
	required, _ := s["required"].([]any)
	required = slices.Clone(required)
	for _, name := range []string{"kind", "apiVersion"} {
		if !slices.Contains(required, any(name)) {
			required = append(required, name)
		}
	}
	s["required"] = required
	return s
}

// selectableFields is the extension that names the fields by which objects can be selected (KEP-4358).
const selectableFields = "x-kubernetes-selectable-fields"

// selectable returns that extension's value; nil where there are none.
func selectable(r *api.Resource) []any {
	var out []any
	for _, name := range r.SelectableFields {
		out = append(out, object{"fieldPath": name})
	}
	return out
}

// described is a reference with a description.
func (b *builder) described(ref object, text string) object {
	if b.v3 {
		return object{"allOf": []any{ref}, "description": text} // a $ref hides what stands beside it
	}
	ref["description"] = text
	return ref
}

// customName is the name that Kubernetes publishes a custom kind under: com.example.v1.Widget for widgets of the group example.com.
func customName(k kind) string {
	parts := strings.Split(k.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, k.Version, k.Kind), ".")
}
