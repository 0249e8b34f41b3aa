package api

import (
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	storageutil "k8s.io/kubernetes/pkg/api/storage"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
	"k8s.io/kubernetes/pkg/features"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// CSIDrivers are storage.k8s.io/v1 CSI drivers: stored and validated; no node runs one yet.
var CSIDrivers = declare(kind[storagev1.CSIDriver, storage.CSIDriver, storagev1.CSIDriverList]{
	Resource: Resource{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("CSIDriver"),
		Plural:           "csidrivers", Singular: "csidriver",
		Prefix: "csidrivers", AnswersDeleted: true, Conditional: true,
	},
	prepareUpdate: func(d, old *storage.CSIDriver, _ string) {
		if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) {
			d.Generation = old.Generation + 1
		}
	},
	validate: storagevalidation.ValidateCSIDriver,
	validateUpdate: func(d, old *storage.CSIDriver, _ string) field.ErrorList {
		return storagevalidation.ValidateCSIDriverUpdate(d, old)
	},
	warnings: driverWarnings,
})

// driverWarnings warns of tokens that a driver would take by a way that is often logged (KEP-5538).
func driverWarnings(d, old *storage.CSIDriver) []string {
	if len(d.Spec.TokenRequests) == 0 || d.Spec.ServiceAccountTokenInSecrets != nil ||
		old != nil && apiequality.Semantic.DeepEqual(d.Spec.TokenRequests, old.Spec.TokenRequests) {
		return nil
	}
	return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
}

// CSINodes are storage.k8s.io/v1 CSI nodes: which drivers a node has.
var CSINodes = declare(kind[storagev1.CSINode, storage.CSINode, storagev1.CSINodeList]{
	Resource: Resource{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("CSINode"),
		Plural:           "csinodes", Singular: "csinode",
		Prefix: "csinodes", Status: true, AnswersDeleted: true, Conditional: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
	},
	prepareCreate: func(n *storage.CSINode) { n.Status = storage.CSINodeStatus{} },
	prepareUpdate: func(n, old *storage.CSINode, sub string) {
		if sub == "" {
			n.Status = old.Status
			return
		}
		n.Spec = old.Spec
		metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &old.ObjectMeta)
		if !enabled(features.CSIVolumeHealth) && len(old.Status.StorageHealth) == 0 {
			n.Status.StorageHealth = nil
		}
	},
	validate: storagevalidation.ValidateCSINode,
	validateUpdate: func(n, old *storage.CSINode, sub string) field.ErrorList {
		if sub == "status" {
			return storagevalidation.ValidateCSINodeStatusUpdate(n, old)
		}
		return storagevalidation.ValidateCSINodeUpdate(n, old)
	},
})

// CSIStorageCapacities are storage.k8s.io/v1 capacities: how much of a class a topology segment can hold.
var CSIStorageCapacities = declare(kind[storagev1.CSIStorageCapacity, storage.CSIStorageCapacity, storagev1.CSIStorageCapacityList]{
	Resource: Resource{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("CSIStorageCapacity"),
		Plural:           "csistoragecapacities", Singular: "csistoragecapacity",
		Namespaced: true, Prefix: "csistoragecapacities", Conditional: true,
	},
	validate: func(c *storage.CSIStorageCapacity) field.ErrorList {
		return storagevalidation.ValidateCSIStorageCapacity(c, storagevalidation.CSIStorageCapacityValidateOptions{})
	},
	validateUpdate: func(c, old *storage.CSIStorageCapacity, _ string) field.ErrorList {
		opts := storagevalidation.CSIStorageCapacityValidateOptions{AllowInvalidLabelValueInSelector: badSelector(old.NodeTopology)}
		return append(storagevalidation.ValidateCSIStorageCapacity(c, opts), storagevalidation.ValidateCSIStorageCapacityUpdate(c, old)...)
	},
	warnings: func(c, _ *storage.CSIStorageCapacity) []string {
		return storageutil.GetWarningsForCSIStorageCapacity(c)
	},
})

// VolumeAttachments are storage.k8s.io/v1 attachments: a volume is to be attached to a node, which an external-attacher does.
var VolumeAttachments = declare(kind[storagev1.VolumeAttachment, storage.VolumeAttachment, storagev1.VolumeAttachmentList]{
	Resource: Resource{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("VolumeAttachment"),
		Plural:           "volumeattachments", Singular: "volumeattachment",
		Prefix: "volumeattachments", Status: true, AnswersDeleted: true, Conditional: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
	},
	prepareCreate: func(a *storage.VolumeAttachment) { a.Status = storage.VolumeAttachmentStatus{} },
	prepareUpdate: func(a, old *storage.VolumeAttachment, sub string) {
		if sub == "" {
			a.Status = old.Status
			return
		}
		a.Spec = old.Spec
		metav1.ResetObjectMetaForStatus(&a.ObjectMeta, &old.ObjectMeta)
	},
	validate: storagevalidation.ValidateVolumeAttachment,
	validateUpdate: func(a, old *storage.VolumeAttachment, _ string) field.ErrorList {
		return storagevalidation.ValidateVolumeAttachmentUpdate(a, old)
	},
})
