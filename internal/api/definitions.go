package api

import (
	"bytes"
	"context"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-io/knarr/internal/api/definition"
)

// CustomResourceDefinitions are apiextensions.k8s.io/v1 definitions of further resources. What they define is declared by server/crd;
// internal/controller/crd writes their status.
//
// Their schemas are packed in the store's tables (definition.Pack), and most of what is done with a definition leaves them so.
var CustomResourceDefinitions = statusAlone(packed(declare(kind[apiextensionsv1.CustomResourceDefinition, apiextensions.CustomResourceDefinition, apiextensionsv1.CustomResourceDefinitionList]{
	Resource: Resource{
		GroupVersionKind: apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
		Plural:           "customresourcedefinitions", Singular: "customresourcedefinition", ShortNames: []string{"crd", "crds"},
		Categories: []string{"api-extensions"},
		Prefix:     "apiextensions.k8s.io/customresourcedefinitions", Status: true,
		Dynamic: Dynamic{Columns: definition.Columns(), Cells: func(obj Object) []any {
			return definition.Cells(obj.(*apiextensionsv1.CustomResourceDefinition))
		}},
		BeginDeletion: func(obj Object) bool {
			definition.BeginDeletion(obj.(*apiextensionsv1.CustomResourceDefinition), metav1.Now().Rfc3339Copy())
			return false // the finalizer keeps it
		},
	},
	prepareCreate: func(crd *apiextensions.CustomResourceDefinition) {
		crd.Status = apiextensions.CustomResourceDefinitionStatus{}
		crd.Generation = 1
		definition.StoreVersion(crd)
	},
	prepareUpdate: func(crd, old *apiextensions.CustomResourceDefinition, sub string) {
		if sub == "status" {
			crd.Spec = old.Spec
			if len(crd.Status.StoredVersions) == 0 {
				definition.StoreVersion(crd)
			}
			return
		}
		crd.Status = *old.Status.DeepCopy()
		if !apiequality.Semantic.DeepEqual(crd.Spec, old.Spec) {
			crd.Generation = old.Generation + 1
		}
		definition.StoreVersion(crd)
	},
	validate: func(crd *apiextensions.CustomResourceDefinition) field.ErrorList {
		return validation.ValidateCustomResourceDefinition(context.Background(), crd)
	},
	validateUpdate: func(crd, old *apiextensions.CustomResourceDefinition, sub string) field.ErrorList {
		if sub == "status" {
			return validation.ValidateUpdateCustomResourceDefinitionStatus(context.Background(), crd, old)
		}
		return validation.ValidateCustomResourceDefinitionUpdate(context.Background(), crd, old)
	},
	warnings: definition.Warnings,
})))

// packed makes a resource of definitions cope with packed ones, and stores them as JSON, which needs no reading of schemas. Kubernetes
// reads both that and protobuf.
func packed(r *Resource) *Resource {
	type crd = apiextensionsv1.CustomResourceDefinition
	r.History = 1024 // of as many replaced states the schemas are kept
	r.Packing = &Packing{
		Pack:    func(obj Object) error { return definition.Pack(obj.(*crd)) },
		Whole:   func(obj Object) (Object, error) { return definition.Whole(obj.(*crd)) },
		Outline: func(obj Object) (Object, error) { return definition.Outline(obj.(*crd)) },
		JSON:    func(obj Object) ([]byte, error) { return definition.JSON(obj.(*crd)) },
	}
	r.Encode = func(obj Object) ([]byte, error) { return encodeDefinition(r, obj) }
	r.Decode = func(data []byte) (Object, error) { return decodeDefinition(r, data) }
	prepareCreate, prepareUpdate, validate, validateUpdate, warnings := r.PrepareForCreate, r.PrepareForUpdate, r.Validate, r.ValidateUpdate, r.Warnings
	r.PrepareForCreate = func(obj Object) {
		def := obj.(*crd)
		spec, small := def.Spec, definition.WithoutSchemas(def)
		prepareCreate(small)
		*def = *small
		def.Spec = spec
	}
	r.PrepareForUpdate = func(obj, old Object, sub string) {
		def, was := obj.(*crd), old.(*crd)
		definition.KeepSame(def, was)
		small, smallWas := outlineOf(def), outlineOf(was)
		prepareUpdate(small, smallWas, sub)
		spec := def.Spec
		*def = *small
		def.Spec = spec
	}
	r.Validate = func(obj Object) field.ErrorList {
		whole, err := r.Whole(obj)
		if err != nil {
			return unreadable(err)
		}
		return validate(whole)
	}
	r.ValidateUpdate = func(obj, old Object, sub string) field.ErrorList {
		whole, err := r.Whole(obj)
		if err != nil {
			return unreadable(err)
		}
		was, err := r.Whole(old)
		if err != nil {
			return unreadable(err)
		}
		return validateUpdate(whole, was, sub)
	}
	r.Warnings = func(obj, old Object) []string {
		whole, err := r.Whole(obj)
		if err != nil {
			return nil // validation has said so
		}
		if old != nil {
			if old, err = r.Whole(old); err != nil {
				old = nil
			}
		}
		return warnings(whole, old)
	}
	return r
}

// outlineOf returns the outline of a packed definition, which always has one.
func outlineOf(def *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinition {
	out, err := definition.Outline(def)
	if err != nil {
		return def
	}
	return out
}

// encodeDefinition returns a definition as it is stored.
func encodeDefinition(r *Resource, obj Object) ([]byte, error) {
	obj = r.shallow(obj)
	obj.SetResourceVersion("")
	obj.SetSelfLink("")
	obj.GetObjectKind().SetGroupVersionKind(r.GroupVersionKind)
	return r.Packing.JSON(obj)
}

// decodeDefinition reads what encodeDefinition, or Kubernetes, wrote. What was written by Kubernetes may be protobuf.
func decodeDefinition(r *Resource, data []byte) (Object, error) {
	var schemas [][]byte
	if bytes.HasPrefix(data, []byte("{")) {
		var err error
		if data, schemas, err = definition.Split(data); err != nil {
			return nil, err
		}
	}
	obj, err := decodeStorage(r, data)
	if err != nil {
		return nil, err
	}
	r.Default(obj)
	def := obj.(*apiextensionsv1.CustomResourceDefinition)
	if err := definition.Join(def, schemas); err != nil {
		return nil, fmt.Errorf("reading the stored definition %s: %w", def.Name, err)
	}
	return def, definition.Pack(def)
}

func unreadable(err error) field.ErrorList {
	return field.ErrorList{field.InternalError(field.NewPath("spec", "versions"), err)}
}

// statusAlone makes writes of a definition's status leave its schemas aside: they stay what they were, and may be large.
func statusAlone(r *Resource) *Resource {
	prepare, validate := r.PrepareForUpdate, r.ValidateUpdate
	r.PrepareForUpdate = func(obj, old Object, sub string) {
		if sub != "status" {
			prepare(obj, old, sub)
			return
		}
		crd, was := obj.(*apiextensionsv1.CustomResourceDefinition), old.(*apiextensionsv1.CustomResourceDefinition)
		crd.Spec = was.Spec
		small := definition.WithoutSchemas(crd)
		prepare(small, definition.WithoutSchemas(was), sub)
		small.Spec = was.Spec
		*crd = *small
	}
	r.ValidateUpdate = func(obj, old Object, sub string) field.ErrorList {
		if sub == "status" {
			obj = definition.WithoutSchemas(obj.(*apiextensionsv1.CustomResourceDefinition))
			old = definition.WithoutSchemas(old.(*apiextensionsv1.CustomResourceDefinition))
		}
		return validate(obj, old, sub)
	}
	return r
}
