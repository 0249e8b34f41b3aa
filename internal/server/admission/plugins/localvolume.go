package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// LocalVolumeNode labels the volumes of nodes' own disks with the node, whoever makes them: each agent follows those with its label.
type LocalVolumeNode struct{}

// Name implements admission.Plugin.
func (LocalVolumeNode) Name() string { return "LocalVolumeNode" }

// Admit implements admission.Plugin.
func (LocalVolumeNode) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.PersistentVolumes || a.Subresource != "" || a.Operation == admission.Delete {
		return nil
	}
	pv := a.Object.(*corev1.PersistentVolume)
	host := localvolume.Host(pv)
	if host == "" || pv.Labels[localvolume.NodeLabel] == host {
		return nil
	}
	if pv.Labels == nil {
		pv.Labels = map[string]string{}
	}
	pv.Labels[localvolume.NodeLabel] = host
	return nil
}

// Validate implements admission.Plugin.
func (LocalVolumeNode) Validate(context.Context, *admission.Attributes) error { return nil }
