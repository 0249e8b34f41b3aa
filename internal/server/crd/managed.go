package crd

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// metaModel is the name of the model of metadata in schemas of server-side apply.
const metaModel = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

// typed returns how server-side apply reads objects of a kind in each of its versions.
func (d *definition) typed() (managedfields.TypeConverter, error) {
	models := map[string]*spec.Schema{metaModel: objectMeta()}
	for version, f := range d.forms {
		s, err := f.compiled()
		if err != nil {
			return nil, errSchema(err)
		}
		model := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
		switch {
		case s != nil:
			model = s.Unfold().ToKubeOpenAPI()
		default:
			model.AddExtension("x-kubernetes-preserve-unknown-fields", true)
		}
		model.SetProperty("apiVersion", *spec.StringProperty())
		model.SetProperty("kind", *spec.StringProperty())
		model.SetProperty("metadata", *spec.RefSchema("#/definitions/" + metaModel))
		gvk := schema.GroupVersionKind{Group: d.group, Version: version, Kind: d.names.Kind}
		model.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind}})
		models[gvk.Group+"."+gvk.Version+"."+gvk.Kind] = model
	}
	out, err := managedfields.NewTypeConverter(models, d.loose)
	if err != nil {
		return nil, fmt.Errorf("reading the schema for server-side apply: %w", err)
	}
	return out, nil
}

// objectMeta is how metadata merges: labels and annotations by key, finalizers as a set, owners by UID.
func objectMeta() *spec.Schema {
	object := func(properties map[string]spec.Schema) *spec.Schema {
		return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: properties}}
	}
	with := func(s *spec.Schema, extensions map[string]any) spec.Schema {
		for name, value := range extensions {
			s.AddExtension(name, value)
		}
		return *s
	}
	text := *spec.StringProperty()
	strings := *spec.MapProperty(spec.StringProperty())
	owner := with(object(map[string]spec.Schema{
		"apiVersion": text, "kind": text, "name": text, "uid": text, "controller": *spec.BooleanProperty(), "blockOwnerDeletion": *spec.BooleanProperty(),
	}), map[string]any{"x-kubernetes-map-type": "atomic"})
	fields := with(object(nil), map[string]any{"x-kubernetes-preserve-unknown-fields": true})
	manager := *object(map[string]spec.Schema{
		"apiVersion": text, "fieldsType": text, "fieldsV1": fields, "manager": text, "operation": text, "subresource": text, "time": text,
	})
	return object(map[string]spec.Schema{
		"name": text, "generateName": text, "namespace": text, "selfLink": text, "uid": text, "resourceVersion": text,
		"creationTimestamp": text, "deletionTimestamp": text,
		"generation": *spec.Int64Property(), "deletionGracePeriodSeconds": *spec.Int64Property(),
		"labels": strings, "annotations": strings,
		"finalizers":      with(spec.ArrayProperty(&text), map[string]any{"x-kubernetes-list-type": "set"}),
		"ownerReferences": with(spec.ArrayProperty(&owner), map[string]any{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": []any{"uid"}}),
		"managedFields":   with(spec.ArrayProperty(&manager), map[string]any{"x-kubernetes-list-type": "atomic"}),
	})
}
