package persistentvolume

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// planVolume decides about a volume. claim is the one that it names, nil if there is none.
func planVolume(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) outcome {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" { // free, or reserved for a claim that is not bound to it yet
		return outcome{volume: inPhase(v, corev1.VolumeAvailable, "")}
	}
	if claim == nil || claim.UID != ref.UID {
		return planReleased(v)
	}
	switch claim.Spec.VolumeName {
	case "":
		if !storage.CheckVolumeModeMismatches(&claim.Spec, &v.Spec) {
			return outcome{} // the claim's turn
		}
		return outcome{events: []event.Event{
			event.Warning(v, "VolumeMismatch", "Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", claim.Name),
			event.Warning(claim, "VolumeMismatch", "Cannot bind PersistentVolume %q to requested PersistentVolumeClaim due to incompatible volumeMode.", v.Name),
		}}
	case v.Name:
		return outcome{volume: inPhase(v, corev1.VolumeBound, "")}
	}
	// The claim has another volume.
	if metav1.HasAnnotation(v.ObjectMeta, storage.AnnDynamicallyProvisioned) && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		return planReleased(v)
	}
	return outcome{volume: volume.Unbind(v)}
}

// inPhase returns a volume in a phase, nil if it is in that already.
func inPhase(v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) *corev1.PersistentVolume {
	if v.Status.Phase == phase {
		return nil
	}
	next := v.DeepCopy()
	next.Status.Phase, next.Status.Message = phase, message
	return next
}

// planReleased decides about a volume whose claim is gone.
func planReleased(v *corev1.PersistentVolume) outcome {
	var o outcome
	if v.Status.Phase != corev1.VolumeFailed { // that it failed is for people to see
		o.volume = inPhase(v, corev1.VolumeReleased, "")
	}
	failed := func(reason, message string) outcome {
		if v.Status.Phase == corev1.VolumeFailed {
			return outcome{}
		}
		return outcome{volume: inPhase(v, corev1.VolumeFailed, message), events: []event.Event{event.Warning(v, reason, "%s", message)}}
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain:
	case corev1.PersistentVolumeReclaimRecycle:
		return failed("VolumeFailedRecycle", "No recycler plugin found for the volume!")
	case corev1.PersistentVolumeReclaimDelete:
		who := v.Annotations[storage.AnnDynamicallyProvisioned]
		switch {
		case who == volume.Local:
			o.remove = v.DeletionTimestamp == nil
		case strings.HasPrefix(who, inTree) || who == "" && v.Spec.CSI == nil && !metav1.HasAnnotation(v.ObjectMeta, storage.AnnMigratedTo):
			return failed("VolumeFailedDelete", fmt.Sprintf("error getting deleter volume plugin for volume %q: no deletable volume plugin matched", v.Name))
		} // whoever made it deletes it
	default:
		return failed("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy")
	}
	return o
}
