package plugins

import (
	"context"
	"slices"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// StorageObjectInUseProtection gives claims and volumes the finalizers that keep them as long as they are used (KEP-498, KEP-499). The
// controllers of package storageprotection take them off.
type StorageObjectInUseProtection struct{}

// Name implements admission.Plugin.
func (StorageObjectInUseProtection) Name() string { return "StorageObjectInUseProtection" }

// Admit implements admission.Plugin.
func (StorageObjectInUseProtection) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Create || a.Subresource != "" {
		return nil
	}
	var finalizer string
	switch a.Resource {
	case api.PersistentVolumeClaims:
		finalizer = volume.ClaimProtection
	case api.PersistentVolumes:
		finalizer = volume.VolumeProtection
	default:
		return nil
	}
	if have := a.Object.GetFinalizers(); !slices.Contains(have, finalizer) {
		a.Object.SetFinalizers(append(have, finalizer))
	}
	return nil
}

// Validate implements admission.Plugin.
func (StorageObjectInUseProtection) Validate(context.Context, *admission.Attributes) error {
	return nil
}
