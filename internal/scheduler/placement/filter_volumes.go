package placement

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// volumeBinding keeps a pod off every node as long as a claim of its volumes is not bound.
var volumeBinding = Filter{
	Name:  "VolumeBinding",
	Helps: ClaimChanged,
	Next:  "look at the PersistentVolumeClaims of the pod (kubectl describe pvc)",
	pod:   volumeProblem,
}

const reasonUnbound = "pod has unbound immediate PersistentVolumeClaims"

// SetClaim adds or updates a PersistentVolumeClaim.
func (st *State) SetClaim(pvc *corev1.PersistentVolumeClaim) {
	st.claims[types.NamespacedName{Namespace: pvc.Namespace, Name: pvc.Name}] = pvc
}

// RemoveClaim forgets a PersistentVolumeClaim.
func (st *State) RemoveClaim(key types.NamespacedName) { delete(st.claims, key) }

// volumeProblem returns why pod cannot be placed anywhere because of its claims, or "".
func volumeProblem(st *State, pod *corev1.Pod) string {
	unbound := false
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		name := ""
		switch {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil: // its claim is named for pod and volume (KEP-1698)
			name = pod.Name + "-" + v.Name
		default:
			continue
		}
		pvc := st.claims[types.NamespacedName{Namespace: pod.Namespace, Name: name}]
		switch {
		case pvc == nil && v.Ephemeral != nil:
			return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case pvc == nil:
			return fmt.Sprintf("persistentvolumeclaim %q not found", name)
		case pvc.DeletionTimestamp != nil:
			return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		case pvc.Status.Phase == corev1.ClaimLost:
			return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, pvc.Spec.VolumeName)
		case pvc.Spec.VolumeName == "" || pvc.Status.Phase != corev1.ClaimBound:
			unbound = true
		}
	}
	if unbound {
		return reasonUnbound
	}
	return ""
}
