package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// PersistentVolumeClaimResize lets claims grow that are bound, and whose class allows it.
type PersistentVolumeClaimResize struct{ Reader admission.Reader }

// Name implements admission.Plugin.
func (PersistentVolumeClaimResize) Name() string { return "PersistentVolumeClaimResize" }

// Admit implements admission.Plugin.
func (PersistentVolumeClaimResize) Admit(context.Context, *admission.Attributes) error { return nil }

// Validate implements admission.Plugin.
func (p PersistentVolumeClaimResize) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.PersistentVolumeClaims || a.Operation != admission.Update || a.Subresource != "" {
		return nil
	}
	claim, old := a.Object.(*corev1.PersistentVolumeClaim), a.Old.(*corev1.PersistentVolumeClaim)
	is, was := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	switch {
	case is.Cmp(was) <= 0:
		return nil
	case old.Status.Phase != corev1.ClaimBound:
		return forbidden(a, "Only bound persistent volume claims can be expanded")
	case !p.grows(claim, old):
		return forbidden(a, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
	}
	return nil
}

// grows reports whether the class of a claim lets its volumes grow.
func (p PersistentVolumeClaimResize) grows(claim, old *corev1.PersistentVolumeClaim) bool {
	name := storage.GetPersistentVolumeClaimClass(claim)
	if name == "" || name != storage.GetPersistentVolumeClaimClass(old) {
		return false
	}
	obj, ok := p.Reader.Get(api.StorageClasses, api.Key{Name: name})
	if !ok {
		return false
	}
	allowed := obj.(*storagev1.StorageClass).AllowVolumeExpansion
	return allowed != nil && *allowed
}
