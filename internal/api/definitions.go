package api

import (
	"context"

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
var CustomResourceDefinitions = statusAlone(declare(kind[apiextensionsv1.CustomResourceDefinition, apiextensions.CustomResourceDefinition, apiextensionsv1.CustomResourceDefinitionList]{
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
}))

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
