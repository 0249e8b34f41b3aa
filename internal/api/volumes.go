package api

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	pvutil "k8s.io/kubernetes/pkg/api/persistentvolume"
	pvcutil "k8s.io/kubernetes/pkg/api/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"

	"github.com/knarr-io/knarr/internal/api/volume"
)

// PersistentVolumes are core/v1 persistent volumes.
var PersistentVolumes = declare(kind[corev1.PersistentVolume, core.PersistentVolume, corev1.PersistentVolumeList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("PersistentVolume"),
		Plural:           "persistentvolumes", Singular: "persistentvolume", ShortNames: []string{"pv"},
		Prefix: "persistentvolumes", Status: true, AnswersDeleted: true,
		Indexes: map[string]func(Object) []string{IndexVolume: func(o Object) []string { return []string{volume.Indexed(o.(*corev1.PersistentVolume))} }},
	},
	prepareCreate: func(pv *core.PersistentVolume) {
		pvutil.DropDisabledSpecFields(&pv.Spec, nil)
		now := metav1.Now()
		pv.Status = core.PersistentVolumeStatus{Phase: core.VolumePending, LastPhaseTransitionTime: &now}
	},
	prepareUpdate: preparePVUpdate,
	validate: func(pv *core.PersistentVolume) field.ErrorList {
		return corevalidation.ValidatePersistentVolume(pv, corevalidation.ValidationOptionsForPersistentVolume(pv, nil))
	},
	validateUpdate: func(pv, old *core.PersistentVolume, sub string) field.ErrorList {
		if sub == "status" {
			return corevalidation.ValidatePersistentVolumeStatusUpdate(pv, old)
		}
		opts := corevalidation.ValidationOptionsForPersistentVolume(pv, old)
		return append(corevalidation.ValidatePersistentVolume(pv, opts), corevalidation.ValidatePersistentVolumeUpdate(pv, old, opts)...)
	},
	warnings: func(pv, _ *core.PersistentVolume) []string { return pvutil.GetWarningsForPersistentVolume(pv) },
})

func preparePVUpdate(pv, old *core.PersistentVolume, sub string) {
	if sub != "status" {
		pv.Status = old.Status
		pvutil.DropDisabledSpecFields(&pv.Spec, &old.Spec)
		return
	}
	pv.Spec = old.Spec
	was, is := old.Status.LastPhaseTransitionTime, pv.Status.LastPhaseTransitionTime
	switch {
	case pv.Status.Phase == old.Status.Phase && is == nil:
		pv.Status.LastPhaseTransitionTime = was
	case pv.Status.Phase != old.Status.Phase && (is == nil || is.Equal(was)):
		now := metav1.Now()
		pv.Status.LastPhaseTransitionTime = &now
	}
}

// PersistentVolumeClaims are core/v1 claims.
var PersistentVolumeClaims = declare(kind[corev1.PersistentVolumeClaim, core.PersistentVolumeClaim, corev1.PersistentVolumeClaimList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
		Plural:           "persistentvolumeclaims", Singular: "persistentvolumeclaim", ShortNames: []string{"pvc"},
		Namespaced: true, Prefix: "persistentvolumeclaims", Status: true, AnswersDeleted: true,
	},
	prepareCreate: func(pvc *core.PersistentVolumeClaim) {
		pvc.Status = core.PersistentVolumeClaimStatus{Phase: core.ClaimPending} // the default, which is applied before
		preparePVCSpec(&pvc.Spec, nil)
	},
	prepareUpdate: func(pvc, old *core.PersistentVolumeClaim, sub string) {
		if sub == "status" {
			pvc.Spec = old.Spec
			pvcutil.DropDisabledFieldsFromStatus(pvc, old)
			return
		}
		pvc.Status = old.Status
		preparePVCSpec(&pvc.Spec, &old.Spec)
	},
	validate: func(pvc *core.PersistentVolumeClaim) field.ErrorList {
		return corevalidation.ValidatePersistentVolumeClaim(pvc, corevalidation.ValidationOptionsForPersistentVolumeClaim(pvc, nil))
	},
	validateUpdate: func(pvc, old *core.PersistentVolumeClaim, sub string) field.ErrorList {
		opts := corevalidation.ValidationOptionsForPersistentVolumeClaim(pvc, old)
		if sub == "status" {
			return corevalidation.ValidatePersistentVolumeClaimStatusUpdate(pvc, old, opts)
		}
		return corevalidation.ValidatePersistentVolumeClaimUpdate(pvc, old, opts)
	},
	warnings: func(pvc, _ *core.PersistentVolumeClaim) []string {
		return pvcutil.GetWarningsForPersistentVolumeClaim(pvc)
	},
})

// preparePVCSpec makes dataSource and dataSourceRef agree (KEP-1495).
func preparePVCSpec(spec, old *core.PersistentVolumeClaimSpec) {
	pvcutil.DropDisabledFields(spec, old)
	pvcutil.EnforceDataSourceBackwardsCompatibility(spec, old)
	pvcutil.NormalizeDataSources(spec)
}
