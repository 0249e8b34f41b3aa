package csi

import (
	"strconv"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// The capabilities of a driver's node service that make a difference.
const (
	canStage      = spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME
	canExpand     = spec.NodeServiceCapability_RPC_EXPAND_VOLUME
	canGroup      = spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP
	canManyOnNode = spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER
)

// modeOf returns the access mode as a driver has it. Volumes with several modes go by the first, as with the kubelet.
func (d *driver) modeOf(modes []corev1.PersistentVolumeAccessMode) spec.VolumeCapability_AccessMode_Mode {
	mode := corev1.ReadWriteOnce
	if len(modes) > 0 {
		mode = modes[0]
	}
	switch mode {
	case corev1.ReadOnlyMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case corev1.ReadWriteMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	}
	switch {
	case !d.can[canManyOnNode]:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	case mode == corev1.ReadWriteOncePod: // KEP-2485
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	}
	return spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
}

// capability returns how a volume is used.
func (d *driver) capability(r *Request) *spec.VolumeCapability {
	out := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: d.modeOf(r.PV.Spec.AccessModes)}}
	if r.Block {
		out.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		return out
	}
	mount := &spec.VolumeCapability_MountVolume{FsType: r.PV.Spec.CSI.FSType, MountFlags: r.PV.Spec.MountOptions}
	if gid := groupOf(r.Pod); gid != nil && d.can[canGroup] {
		mount.VolumeMountGroup = strconv.FormatInt(*gid, 10)
	}
	out.AccessType = &spec.VolumeCapability_Mount{Mount: mount}
	return out
}

func groupOf(pod *corev1.Pod) *int64 {
	if pod == nil || pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// groups reports whether the agent has to give the files of a volume to the pod's fsGroup (KEP-1682).
func groups(r *Request, policy *storagev1.FSGroupPolicy) bool {
	if groupOf(r.Pod) == nil || r.Block || r.ReadOnly || policy != nil && *policy == storagev1.NoneFSGroupPolicy {
		return false
	}
	if policy != nil && *policy == storagev1.FileFSGroupPolicy {
		return true
	}
	if r.PV.Spec.CSI.FSType == "" {
		return false
	}
	if r.Inline {
		return true
	}
	for _, mode := range r.PV.Spec.AccessModes {
		if mode == corev1.ReadWriteOnce || mode == corev1.ReadWriteOncePod {
			return true
		}
	}
	return false
}
