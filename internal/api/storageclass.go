package api

import (
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	storageutil "k8s.io/kubernetes/pkg/api/storage"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
)

// StorageClasses are storage.k8s.io/v1 storage classes: claims name them or get the default one.
var StorageClasses = declare(kind[storagev1.StorageClass, storage.StorageClass, storagev1.StorageClassList]{
	Resource: Resource{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("StorageClass"),
		Plural:           "storageclasses", Singular: "storageclass", ShortNames: []string{"sc"},
		Prefix: "storageclasses", AnswersDeleted: true,
	},
	validate: storagevalidation.ValidateStorageClass,
	validateUpdate: func(c, old *storage.StorageClass, _ string) field.ErrorList {
		return append(storagevalidation.ValidateStorageClass(c), storagevalidation.ValidateStorageClassUpdate(c, old)...)
	},
	warnings: func(c, _ *storage.StorageClass) []string { return storageutil.GetWarningsForStorageClass(c) },
})

// VolumeAttributesClasses are storage.k8s.io/v1 classes of what may be changed of a volume while it lives (KEP-3751).
var VolumeAttributesClasses = declare(kind[storagev1.VolumeAttributesClass, storage.VolumeAttributesClass, storagev1.VolumeAttributesClassList]{
	Resource: Resource{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("VolumeAttributesClass"),
		Plural:           "volumeattributesclasses", Singular: "volumeattributesclass", ShortNames: []string{"vac"},
		Prefix: "volumeattributesclasses", AnswersDeleted: true,
	},
	validate: storagevalidation.ValidateVolumeAttributesClass,
	validateUpdate: func(c, old *storage.VolumeAttributesClass, _ string) field.ErrorList {
		return storagevalidation.ValidateVolumeAttributesClassUpdate(c, old)
	},
})
