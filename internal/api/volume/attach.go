package volume

import (
	"crypto/sha256"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-io/knarr/internal/api/localvolume"
)

// AttachmentName returns the name of the VolumeAttachment of a volume of a CSI driver and a node, as external-attachers and agents know it.
func AttachmentName(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

// UniqueName returns how the status of a Node names a volume of a CSI driver.
func UniqueName(driver, handle string) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + driver + "^" + handle)
}

// Attachable reports whether a volume has to be attached to a node before that can use it. driver is that of the volume, nil where nobody
// says anything of it.
func Attachable(v *corev1.PersistentVolume, driver *storagev1.CSIDriver) bool {
	if v.Spec.CSI == nil || localvolume.Is(v) {
		return false
	}
	return driver == nil || driver.Spec.AttachRequired == nil || *driver.Spec.AttachRequired
}
