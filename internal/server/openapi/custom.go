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
	own := object{}
	if r.Schema != nil {
		declared, err := r.Schema(b.v3)
		if err != nil { // it is not worth that nobody can read about the others
			declared = object{"description": "The schema of this kind cannot be published: " + err.Error()}
		}
		own = maps.Clone(declared)
	}
	if r.Schema == nil {
		own["x-kubernetes-preserve-unknown-fields"] = true
	}
	properties, _ := own["properties"].(object)
	properties = maps.Clone(properties)
	if properties == nil {
		properties = object{}
	}
	docs := metav1.TypeMeta{}.SwaggerDoc()
	properties["apiVersion"] = object{"type": "string", "description": docs["apiVersion"]}
	properties["kind"] = object{"type": "string", "description": docs["kind"]}
	properties["metadata"] = b.described(b.refTo(reflect.TypeFor[metav1.ObjectMeta]()),
		"Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata")
	own["type"], own["properties"] = "object", properties
	k := kind{r.GroupVersionKind}
	own["x-kubernetes-group-version-kind"] = []any{k.extension()}
	name := customName(k)
	b.custom[k], b.schemas[name] = name, own

	lists := kind{r.ListGroupVersionKind(r.GroupVersion())}
	listName := customName(lists)
	b.custom[lists], b.schemas[listName] = listName, object{
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
