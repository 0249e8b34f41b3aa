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

// WithoutSchemas returns a copy of a definition that has no schemas. It shares all else.
func WithoutSchemas(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinition {
	out := *crd
	out.Spec.Versions = slices.Clone(crd.Spec.Versions)
	for i := range out.Spec.Versions {
		out.Spec.Versions[i].Schema = nil
	}
	return &out
}
