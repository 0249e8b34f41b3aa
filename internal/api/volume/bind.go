package volume

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
)

// Bind returns a volume and a claim as they are once they are bound to each other.
func Bind(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, *corev1.PersistentVolumeClaim, error) {
	if _, ok := v.Spec.Capacity[corev1.ResourceStorage]; !ok {
		return nil, nil, fmt.Errorf("PersistentVolume %q is without a storage capacity", v.Name)
	}
	nextVolume, _, err := storage.GetBindVolumeToClaim(v, claim)
	if err != nil {
		return nil, nil, err
	}
	nextVolume.Status.Phase, nextVolume.Status.Message = corev1.VolumeBound, ""
	next := claim.DeepCopy()
	if next.Spec.VolumeName != v.Name {
		next.Spec.VolumeName = v.Name
		if !metav1.HasAnnotation(next.ObjectMeta, storage.AnnBoundByController) {
			metav1.SetMetaDataAnnotation(&next.ObjectMeta, storage.AnnBoundByController, "yes")
		}
	}
	if !metav1.HasAnnotation(next.ObjectMeta, storage.AnnBindCompleted) {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, storage.AnnBindCompleted, "yes")
	}
	boundStatus(next, v)
	return nextVolume, next, nil
}

// resizing is the annotation of a volume with the size that its file system had before it grew.
const resizing = "volume.alpha.kubernetes.io/pre-resize-capacity"

// boundStatus makes the status of a claim that of one that has v. What it has of a volume that it had before is left to those who let it grow.
func boundStatus(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
	s := &claim.Status
	s.AccessModes = slices.Clone(v.Spec.AccessModes)
	if s.Phase == corev1.ClaimBound {
		return
	}
	size := v.Spec.Capacity[corev1.ResourceStorage]
	if had, err := resource.ParseQuantity(v.Annotations[resizing]); err == nil {
		size = had
	}
	if s.Capacity == nil {
		s.Capacity = corev1.ResourceList{}
	}
	s.Capacity[corev1.ResourceStorage] = size
	if s.Phase == corev1.ClaimPending && v.Spec.VolumeAttributesClassName != nil {
		s.CurrentVolumeAttributesClassName = ptr.To(*v.Spec.VolumeAttributesClassName)
	}
	s.Phase = corev1.ClaimBound
}

// Unbind returns a volume without the claim that it was bound to; one that a user bound to it stays reserved for that.
func Unbind(v *corev1.PersistentVolume) *corev1.PersistentVolume {
	next := v.DeepCopy()
	if metav1.HasAnnotation(v.ObjectMeta, storage.AnnBoundByController) {
		next.Spec.ClaimRef = nil
		if delete(next.Annotations, storage.AnnBoundByController); len(next.Annotations) == 0 {
			next.Annotations = nil
		}
	} else {
		next.Spec.ClaimRef.UID = ""
	}
	next.Status.Phase, next.Status.Message = corev1.VolumeAvailable, ""
	return next
}

// Unsuitable returns why a claim cannot have the volume that it names, or nil.
func Unsuitable(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	size, wanted := v.Spec.Capacity[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	switch {
	case v.DeletionTimestamp != nil:
		return fmt.Errorf("the volume is marked for deletion %q", v.Name)
	case size.Cmp(wanted) < 0:
		return errors.New("requested PV is too small")
	case storage.GetPersistentVolumeClass(v) != storage.GetPersistentVolumeClaimClass(claim):
		return errors.New("storageClassName does not match")
	case ptr.Deref(claim.Spec.VolumeAttributesClassName, "") != ptr.Deref(v.Spec.VolumeAttributesClassName, ""):
		return errors.New("volumeAttributesClassName does not match")
	case storage.CheckVolumeModeMismatches(&claim.Spec, &v.Spec):
		return errors.New("incompatible volumeMode")
	case !storage.CheckAccessModes(claim, v):
		return errors.New("incompatible accessMode")
	}
	return nil
}

// Match returns which of volumes a claim gets, or nil: one that is bound to it already, else the smallest with the fewest access modes beyond
// those that it asks for. Where binding waits for a pod (delayed), and no node is given, only one that is bound to it will do.
func Match(claim *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, delayed bool) (*corev1.PersistentVolume, error) {
	var able, named []*corev1.PersistentVolume
	for _, v := range volumes {
		if !storage.CheckAccessModes(claim, v) {
			continue
		}
		if able = append(able, v); storage.IsVolumeBoundToClaim(v, claim) {
			named = append(named, v)
		}
	}
	if v, err := storage.FindMatchingVolume(claim, named, nil, nil, delayed, true); v != nil || err != nil {
		return v, err
	}
	slices.SortStableFunc(able, func(a, b *corev1.PersistentVolume) int { return len(a.Spec.AccessModes) - len(b.Spec.AccessModes) })
	for len(able) > 0 {
		n := 1
		for n < len(able) && len(able[n].Spec.AccessModes) == len(able[0].Spec.AccessModes) {
			n++
		}
		if v, err := storage.FindMatchingVolume(claim, able[:n], nil, nil, delayed, true); v != nil || err != nil {
			return v, err
		}
		able = able[n:]
	}
	return nil, nil
}

// SameBut reports whether two states of a volume differ in their status alone.
func SameBut(a, b *corev1.PersistentVolume) bool {
	return equality.Semantic.DeepEqual(a.Spec, b.Spec) && equality.Semantic.DeepEqual(a.Annotations, b.Annotations)
}

// Binding is what binding a pod to a node does to one of its claims: it gets Volume. Without one it has to be bound already, by another pod.
type Binding struct {
	Claim types.NamespacedName
	UID   types.UID // of the claim
	// Volume is as it was decided about. New reports whether it is to be made.
	Volume *corev1.PersistentVolume
	New    bool
}
