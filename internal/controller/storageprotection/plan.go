package storageprotection

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/volume"
)

// planClaim returns what a claim's metadata and its status are to be; nil where they stay as they are. pods are those whose volumes mean it.
func planClaim(claim *corev1.PersistentVolumeClaim, pods []*corev1.Pod, now time.Time) (meta, status *corev1.PersistentVolumeClaim) {
	if claim.DeletionTimestamp != nil {
		if slices.Contains(claim.Finalizers, volume.ClaimProtection) && !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return holds(p, claim) }) {
			meta = claim.DeepCopy()
			meta.Finalizers = without(meta.Finalizers, volume.ClaimProtection)
		}
		return meta, nil
	}
	if !slices.Contains(claim.Finalizers, volume.ClaimProtection) { // made before admission added it
		meta = claim.DeepCopy()
		meta.Finalizers = append(meta.Finalizers, volume.ClaimProtection)
		return meta, nil
	}
	if claim.Status.Phase == corev1.ClaimBound {
		status = planUnused(claim, slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return !ended(p) && uses(p, claim) }), now)
	}
	return nil, status
}

// planUnused returns a claim with the condition that says whether no pod uses it, and since when (KEP-5541); nil if it says so.
func planUnused(claim *corev1.PersistentVolumeClaim, used bool, now time.Time) *corev1.PersistentVolumeClaim {
	want := corev1.PersistentVolumeClaimCondition{Type: corev1.PersistentVolumeClaimUnused, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
		Reason: "NoPodsUsingPVC", Message: "No pods are currently referencing this PVC"}
	if used {
		want.Status, want.Reason, want.Message = corev1.ConditionFalse, "PodUsingPVC", "A pod is currently referencing this PVC"
	}
	i := slices.IndexFunc(claim.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool { return c.Type == want.Type })
	if i >= 0 && (claim.Status.Conditions[i].Status == corev1.ConditionTrue) != used {
		return nil
	}
	next := claim.DeepCopy()
	if i >= 0 {
		next.Status.Conditions[i] = want
	} else {
		next.Status.Conditions = append(next.Status.Conditions, want)
	}
	return next
}

// holds reports whether a pod keeps a claim from going: one that has a node, as that has, or had, the volume mounted. What a pod of which
// nothing is left but the object had of its own goes with it.
func holds(p *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	if p.Spec.NodeName == "" {
		return false
	}
	over := p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds == 0
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return means(p, &v, claim) && (v.PersistentVolumeClaim != nil || !over)
	})
}

// uses reports whether a volume of a pod means a claim.
func uses(p *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return means(p, &v, claim) })
}

// means reports whether a volume of a pod means a claim: one that the pod made for it has the pod as its controller.
func means(p *corev1.Pod, v *corev1.Volume, claim *corev1.PersistentVolumeClaim) bool {
	return volume.ClaimName(p, v) == claim.Name && (v.Ephemeral == nil || metav1.IsControlledBy(claim, p))
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// planVolume returns what a volume is to be; nil if it stays as it is.
func planVolume(v *corev1.PersistentVolume) *corev1.PersistentVolume {
	protected := slices.Contains(v.Finalizers, volume.VolumeProtection)
	switch {
	case v.DeletionTimestamp == nil && !protected:
		next := v.DeepCopy()
		next.Finalizers = append(next.Finalizers, volume.VolumeProtection)
		return next
	case v.DeletionTimestamp != nil && protected && v.Status.Phase != corev1.VolumeBound:
		next := v.DeepCopy()
		next.Finalizers = without(next.Finalizers, volume.VolumeProtection)
		return next
	}
	return nil
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(all, func(f string) bool { return f == one })
}
