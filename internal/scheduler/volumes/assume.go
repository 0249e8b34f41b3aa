package volumes

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api/volume"
)

// Foreign returns the claims of which a provisioner has to be asked for a volume for the node, before a pod can be bound to it.
func (f *Found) Foreign() []types.NamespacedName {
	var keys []types.NamespacedName
	for _, c := range f.foreign {
		keys = append(keys, types.NamespacedName{Namespace: c.Namespace, Name: c.Name})
	}
	return keys
}

// Waits reports whether provisioners have been asked, and what they make is waited for.
func (f *Found) Waits() bool { return len(f.foreign) > 0 && !f.unasked }

// Assume takes what was found for a pod, and returns what binding it does to its claims.
func (s *State) Assume(pod *corev1.Pod, w *Wants, f Found) []volume.Binding {
	var out []volume.Binding
	for _, a := range w.shared {
		out = append(out, volume.Binding{Claim: a.claim, UID: a.uid})
	}
	for claim, v := range f.static {
		out = append(out, s.assume(pod, claim, v, false))
	}
	for _, claim := range f.local {
		class := s.classes[storage.GetPersistentVolumeClaimClass(claim)]
		out = append(out, s.assume(pod, claim, volume.NewLocal(claim, class, f.host), true))
	}
	return out
}

func (s *State) assume(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume, fresh bool) volume.Binding {
	a := &assumption{claim: types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}, uid: claim.UID, volume: v, pod: pod.UID, fresh: fresh, open: true}
	s.assumed[a.claim], s.coming[v.Name] = a, a
	if fresh {
		s.take(v, 1)
	}
	return volume.Binding{Claim: a.claim, UID: claim.UID, Volume: v, New: fresh}
}
