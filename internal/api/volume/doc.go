// Package volume is what PersistentVolumes, claims and storage classes say of each other: which volume suits a claim, what both look like once
// they are bound, and what a volume of Knarr's own driver is. The controllers, the scheduler and the front door decide by it.
//
// What flows through it: objects come in and stay as they are; copies that say something else come out. What must stay true: it is pure; a
// claim gets the smallest volume that suits it, and one that was made for it before any other (TestMatch); binding twice changes nothing
// (TestBindTwice).
package volume

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"
)

// Finalizers that keep what is in use (KEP-498, KEP-499).
const (
	ClaimProtection  = "kubernetes.io/pvc-protection"
	VolumeProtection = "kubernetes.io/pv-protection"
)

// DefaultClassAnnotations make a storage class the default one.
func DefaultClassAnnotations() []string {
	return []string{"storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"}
}

// DefaultClass returns the default class, or nil: the newest of several, of those of one second the first by name.
func DefaultClass(classes []*storagev1.StorageClass) *storagev1.StorageClass {
	var chosen *storagev1.StorageClass
	for _, c := range classes {
		for _, key := range DefaultClassAnnotations() {
			if c.Annotations[key] == "true" && (chosen == nil || newer(c, chosen)) {
				chosen = c
			}
		}
	}
	return chosen
}

func newer(a, b *storagev1.StorageClass) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.Name < b.Name
	}
	return b.CreationTimestamp.Before(&a.CreationTimestamp)
}

// Delays reports whether claims of a class, which may be nil, are bound once a pod that uses them is placed.
func Delays(class *storagev1.StorageClass) bool {
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// Complete reports whether a claim is bound for good: what it names is its volume.
func Complete(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, storage.AnnBindCompleted)
}

// ClaimNames returns the names of the claims that the volumes of a pod mean. That of an ephemeral volume is POD-VOLUME (KEP-1698).
func ClaimNames(pod *corev1.Pod) []string {
	var out []string
	for i := range pod.Spec.Volumes {
		if name := ClaimName(pod, &pod.Spec.Volumes[i]); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// ClaimName returns the name of the claim that a volume of a pod means; "" if it means none.
func ClaimName(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return pod.Name + "-" + v.Name
	}
	return ""
}

// FreeOf and NamedBy are the values at which an index of volumes has those of a class that no claim has, and those that name a claim.
func FreeOf(class string) string             { return "class/" + class }
func NamedBy(namespace, claim string) string { return "claim/" + namespace + "/" + claim }

// Indexed returns at which of them a volume is found.
func Indexed(v *corev1.PersistentVolume) string {
	if ref := v.Spec.ClaimRef; ref != nil {
		return NamedBy(ref.Namespace, ref.Name)
	}
	return FreeOf(storage.GetPersistentVolumeClass(v))
}

// Reaches reports whether volumes of a class can be made for a node: it is in one of the class' topologies, where these are limited.
func Reaches(class *storagev1.StorageClass, node *corev1.Node) bool {
	return len(class.AllowedTopologies) == 0 || slices.ContainsFunc(class.AllowedTopologies, func(term corev1.TopologySelectorTerm) bool {
		outside := slices.ContainsFunc(term.MatchLabelExpressions, func(e corev1.TopologySelectorLabelRequirement) bool {
			value, labelled := node.Labels[e.Key]
			return !labelled || !slices.Contains(e.Values, value)
		})
		return len(term.MatchLabelExpressions) > 0 && !outside
	})
}
