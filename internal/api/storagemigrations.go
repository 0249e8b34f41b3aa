package api

import (
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/storagemigration"
	storagemigrationvalidation "k8s.io/kubernetes/pkg/apis/storagemigration/validation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// StorageVersionMigrations are storagemigration.k8s.io/v1 requests to write all objects of a resource anew, in the version in which it is
// stored now (KEP-4192).
var StorageVersionMigrations = declare(kind[storagemigrationv1.StorageVersionMigration, storagemigration.StorageVersionMigration, storagemigrationv1.StorageVersionMigrationList]{
	Resource: Resource{
		GroupVersionKind: storagemigrationv1.SchemeGroupVersion.WithKind("StorageVersionMigration"),
		Plural:           "storageversionmigrations", Singular: "storageversionmigration",
		Prefix: "storageversionmigrations", Status: true, Conditional: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
	},
	prepareCreate: func(m *storagemigration.StorageVersionMigration) {
		m.Status = storagemigration.StorageVersionMigrationStatus{}
	},
	prepareUpdate: func(m, old *storagemigration.StorageVersionMigration, sub string) {
		if sub != "status" {
			m.Status = old.Status
			return
		}
		m.Spec = old.Spec
		metav1.ResetObjectMetaForStatus(&m.ObjectMeta, &old.ObjectMeta)
	},
	validate: storagemigrationvalidation.ValidateStorageVersionMigration,
	validateUpdate: func(m, old *storagemigration.StorageVersionMigration, sub string) field.ErrorList {
		if sub == "status" {
			return storagemigrationvalidation.ValidateStorageVersionMigrationStatusUpdate(m, old)
		}
		return storagemigrationvalidation.ValidateStorageVersionMigrationUpdate(m, old)
	},
})
