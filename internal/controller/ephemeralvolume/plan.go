package ephemeralvolume

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/knarr-io/knarr/internal/api/volume"
)

// made is what becomes of the ephemeral volumes of a pod: claims to create, by the name of the volume, and volumes that cannot have one.
type made struct {
	create map[string]*corev1.PersistentVolumeClaim
	taken  map[string]error
}

// planPod decides which claims a pod still needs: claims are those of its namespace that have the names of its own.
func planPod(pod *corev1.Pod, claims map[string]*corev1.PersistentVolumeClaim) made {
	out := made{map[string]*corev1.PersistentVolumeClaim{}, map[string]error{}}
	if pod.DeletionTimestamp != nil {
		return out
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Ephemeral == nil {
			continue
		}
		name := volume.ClaimName(pod, v)
		if claim := claims[name]; claim == nil {
			out.create[v.Name] = fromTemplate(pod, name, v.Ephemeral.VolumeClaimTemplate)
		} else if err := ephemeral.VolumeIsForPod(pod, claim); err != nil {
			out.taken[v.Name] = fmt.Errorf("ephemeral volume %s: %w", v.Name, err)
		}
	}
	return out
}

// fromTemplate returns the claim of a volume of a pod.
func fromTemplate(pod *corev1.Pod, name string, template *corev1.PersistentVolumeClaimTemplate) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: name, Annotations: maps.Clone(template.Annotations), Labels: maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID, Controller: new(true), BlockOwnerDeletion: new(true)}},
		},
		Spec: *template.Spec.DeepCopy(),
	}
}
