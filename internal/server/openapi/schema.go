package openapi

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// object is a JSON object under construction.
type object = map[string]any

// builder collects the schemas that a document refers to.
type builder struct {
	v3      bool
	schemas object
	custom  map[kind]string // the names of schemas of kinds without a Go type
}

func newBuilder(v3 bool) *builder {
	return &builder{v3: v3, schemas: object{}, custom: map[kind]string{}}
}

// refTo returns a reference to the schema of struct type t, adding it where it is not there yet.
func (b *builder) refTo(t reflect.Type) object {
	name := modelName(t)
	if _, ok := b.schemas[name]; !ok {
		b.schemas[name] = object{} // types refer to themselves
		b.schemas[name] = b.model(t)
	}
	return b.ref(name)
}

// ref refers to a schema by its name.
func (b *builder) ref(name string) object {
	if b.v3 {
		return object{"$ref": "#/components/schemas/" + name}
	}
	return object{"$ref": "#/definitions/" + name}
}

// modelName is the name that Kubernetes publishes a type under: io.k8s.api.apps.v1.Deployment.
func modelName(t reflect.Type) string {
	if n, ok := reflect.Zero(t).Interface().(interface{ OpenAPIModelName() string }); ok {
		return n.OpenAPIModelName()
	}
	host, path, _ := strings.Cut(t.PkgPath(), "/")
	parts := strings.Split(host, ".")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, ".") + "." + strings.ReplaceAll(path, "/", ".") + "." + t.Name()
}

// model is the schema of a named type: its own idea of itself, or its fields.
func (b *builder) model(t reflect.Type) object {
	s := object{}
	docs := docsOf(t)
	if d := docs[""]; d != "" {
		s["description"] = d
	}
	zero := reflect.Zero(t).Interface()
	if typ, ok := zero.(interface{ OpenAPISchemaType() []string }); ok {
		if f, ok := zero.(interface{ OpenAPISchemaFormat() string }); ok && f.OpenAPISchemaFormat() != "" {
			s["format"] = f.OpenAPISchemaFormat()
		}
		if one, ok := zero.(interface{ OpenAPIV3OneOfTypes() []string }); ok && b.v3 {
			var of []any
			for _, o := range one.OpenAPIV3OneOfTypes() {
				of = append(of, object{"type": o})
			}
			s["oneOf"] = of
			return s
		}
		if names := typ.OpenAPISchemaType(); len(names) > 0 {
			s["type"] = names[0]
		}
		return s
	}
	s["type"] = "object"
	properties, required := object{}, []any{}
	merge, _ := b.merge(t)
	b.fields(t, docs, merge.Map, properties, &required)
	if merge.Map != nil && merge.Map.ElementRelationship == smd.Atomic {
		s["x-kubernetes-map-type"] = "atomic"
	}
	if len(properties) > 0 {
		s["properties"] = properties
	}
	if known, ok := requiredOf[modelName(t)]; ok {
		required = required[:0]
		for _, f := range strings.Fields(known) {
			required = append(required, f)
		}
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// merge returns how server-side apply merges the type, from the schema that comes with client-go: Go types do not say which
// lists are sets or maps.
func (b *builder) merge(t reflect.Type) (smd.Atom, bool) {
	def, ok := mergeSchema().FindNamedType(modelName(t))
	return def.Atom, ok
}

// mergeSchema is the schema of server-side apply. Any object leads to the whole of it.
func mergeSchema() *smd.Schema {
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	typed, err := api.TypeConverter().ObjectToTyped(pod)
	if err != nil {
		panic(fmt.Sprintf("openapi: client-go's schema has no Pod: %v", err))
	}
	return typed.Schema()
}

// markMerge says in a property how its list or map is merged (KEP-555).
func markMerge(property object, t smd.TypeRef) {
	switch {
	case t.Inlined.List != nil && t.Inlined.List.ElementRelationship == smd.Atomic:
		property["x-kubernetes-list-type"] = "atomic"
	case t.Inlined.List != nil && len(t.Inlined.List.Keys) > 0:
		property["x-kubernetes-list-type"] = "map"
		var keys []any
		for _, k := range t.Inlined.List.Keys {
			keys = append(keys, k)
		}
		property["x-kubernetes-list-map-keys"] = keys
	case t.Inlined.List != nil:
		property["x-kubernetes-list-type"] = "set"
	case t.Inlined.Map != nil && t.Inlined.Map.ElementRelationship == smd.Atomic,
		t.ElementRelationship != nil && *t.ElementRelationship == smd.Atomic:
		property["x-kubernetes-map-type"] = "atomic"
	case t.Inlined.Map != nil && t.Inlined.Map.ElementRelationship == smd.Separable,
		t.ElementRelationship != nil && *t.ElementRelationship == smd.Separable:
		property["x-kubernetes-map-type"] = "granular"
	}
}

// docsOf returns the descriptions of a type's fields by JSON name, and its own under "".
func docsOf(t reflect.Type) map[string]string {
	if d, ok := reflect.Zero(t).Interface().(interface{ SwaggerDoc() map[string]string }); ok {
		return d.SwaggerDoc()
	}
	if t == reflect.TypeFor[metav1.WatchEvent]() { // the only one without
		return map[string]string{"object": "The object as it is after the event, a Status where the type is ERROR."}
	}
	return nil
}

// fields adds the JSON fields of t, those of embedded structs as its own.
func (b *builder) fields(t reflect.Type, docs map[string]string, merge *smd.Map, properties object, required *[]any) {
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" && (f.Anonymous || strings.Contains(opts, "inline")) {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				b.fields(inner, docsOf(inner), merge, properties, required)
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		property := b.property(f, docs[name])
		if merge != nil {
			if field, ok := merge.FindField(name); ok {
				markMerge(property, field.Type)
			}
		}
		if merge == nil && property["type"] == "array" {
			property["x-kubernetes-list-type"] = "atomic" // nobody applies the type, and so are lists of which nothing is said
		}
		properties[name] = property
		if !strings.Contains(opts, "omitempty") && !strings.Contains(opts, "omitzero") && f.Type.Kind() != reflect.Pointer {
			*required = append(*required, name)
		}
	}
}

// property is the schema of one field.
func (b *builder) property(f reflect.StructField, doc string) object {
	s := b.value(f.Type)
	if doc != "" {
		if _, ref := s["$ref"]; ref && b.v3 {
			s = object{"allOf": []any{s}} // a $ref hides what stands beside it
		}
		s["description"] = doc
	}
	if v := f.Tag.Get("patchStrategy"); v != "" {
		s["x-kubernetes-patch-strategy"] = v
	}
	if v := f.Tag.Get("patchMergeKey"); v != "" {
		s["x-kubernetes-patch-merge-key"] = v
	}
	return s
}

// value is the schema of a Go type as a value.
func (b *builder) value(t reflect.Type) object {
	switch t.Kind() {
	case reflect.Pointer:
		return b.value(t.Elem())
	case reflect.Struct:
		return b.refTo(t)
	case reflect.Map:
		return object{"type": "object", "additionalProperties": b.value(t.Elem())}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "format": "byte"}
		}
		return object{"type": "array", "items": b.value(t.Elem())}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int64, reflect.Uint64, reflect.Int, reflect.Uint:
		return object{"type": "integer", "format": "int64"}
	case reflect.Int32, reflect.Uint32, reflect.Int16, reflect.Uint16, reflect.Int8, reflect.Uint8:
		return object{"type": "integer", "format": "int32"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number", "format": "double"}
	case reflect.String:
		return object{"type": "string"}
	}
	return object{"type": "object"}
}

// addKind adds the schema of a kind, marked with the name by which clients look it up.
func (b *builder) addKind(t reflect.Type, name object) {
	b.refTo(t)
	s := b.schemas[modelName(t)].(object)
	have, _ := s["x-kubernetes-group-version-kind"].([]any)
	for _, k := range have {
		if reflect.DeepEqual(k, any(name)) {
			return
		}
	}
	s["x-kubernetes-group-version-kind"] = append(have, name)
}

// typeOf returns the Go type of a kind, or nil where the scheme does not have it.
func typeOf(k kind) reflect.Type {
	return api.Scheme.AllKnownTypes()[k.GroupVersionKind]
}
