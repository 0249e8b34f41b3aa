// Package definition holds what happens to custom resource definitions as they are written, shown and deleted.
//
// What flows through it: api.CustomResourceDefinitions calls it with definitions of upstream's types. What must stay true: a version in
// which objects were once stored is remembered until somebody who has migrated them says otherwise
// (TestTheStoredVersionIsRemembered).
package definition

import (
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// AddToScheme adds the types of apiextensions.k8s.io to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	if err := apiextensions.AddToScheme(s); err != nil {
		return err
	}
	return apiextensionsv1.AddToScheme(s)
}

// StoreVersion adds the version in which objects are stored from now on to those in which some may be.
func StoreVersion(crd *apiextensions.CustomResourceDefinition) {
	for _, v := range crd.Spec.Versions {
		if v.Storage && !slices.Contains(crd.Status.StoredVersions, v.Name) {
			crd.Status.StoredVersions = append(slices.Clip(crd.Status.StoredVersions), v.Name)
		}
	}
}

// BeginDeletion adds the finalizer that keeps a definition until its objects are gone, and says so in its conditions. It changes
// neither slice that the definition shares with others.
func BeginDeletion(crd *apiextensionsv1.CustomResourceDefinition, now metav1.Time) {
	if crd.DeletionTimestamp != nil {
		return
	}
	if !slices.Contains(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		crd.Finalizers = append(slices.Clip(crd.Finalizers), apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	terminating := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message:            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
		LastTransitionTime: now,
	}
	conditions := slices.DeleteFunc(slices.Clone(crd.Status.Conditions), func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Terminating
	})
	crd.Status.Conditions = append(conditions, terminating)
}

// KeepSame puts the schemas of was in place of those of def that say the same in another order.
func KeepSame(def, was *apiextensionsv1.CustomResourceDefinition) {
	def.Spec.Versions = slices.Clone(def.Spec.Versions)
	for i := range def.Spec.Versions {
		v := &def.Spec.Versions[i]
		at := slices.IndexFunc(was.Spec.Versions, func(w apiextensionsv1.CustomResourceDefinitionVersion) bool { return w.Name == v.Name })
		if at >= 0 && sameSchema(v.Schema, was.Spec.Versions[at].Schema) {
			v.Schema = was.Spec.Versions[at].Schema
		}
	}
}

func sameSchema(a, b *apiextensionsv1.CustomResourceValidation) bool {
	if a == nil || b == nil || a.OpenAPIV3Schema == nil || b.OpenAPIV3Schema == nil {
		return false
	}
	if name, err := Name(a.OpenAPIV3Schema); err == nil {
		if other, err := Name(b.OpenAPIV3Schema); err == nil && name == other {
			return true
		}
	}
	x, err := internalSchema(a.OpenAPIV3Schema)
	if err != nil {
		return false
	}
	y, err := internalSchema(b.OpenAPIV3Schema)
	return err == nil && apiequality.Semantic.DeepEqual(x, y)
}

// internalSchema returns a schema as upstream's internal type.
func internalSchema(s *apiextensionsv1.JSONSchemaProps) (*apiextensions.JSONSchemaProps, error) {
	s, err := Schema(s)
	if err != nil {
		return nil, err
	}
	out := &apiextensions.JSONSchemaProps{}
	return out, apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(s, out, nil)
}

// WithoutSchemas returns a copy of a definition that has no schemas. It shares all else.
func WithoutSchemas(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinition {
	out := *crd
	out.Spec.Versions = slices.Clone(crd.Spec.Versions)
	for i := range out.Spec.Versions {
		out.Spec.Versions[i].Schema = nil
	}
	return &out
}
