package volume

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api/localvolume"
)

// Knarr's own volumes: a directory each, on the node of the pod that uses it first.
const (
	// Local is the name of their driver and provisioner.
	Local = localvolume.Driver
	// LocalClass is the class that every cluster begins with.
	LocalClass = "knarr-local"
	// LocalCapacity is the annotation of a Node with the bytes that local volumes may take there, which its agent publishes.
	LocalCapacity = localvolume.CapacityAnnotation
	// LocalDirectory is the finalizer of a volume whose directory is still there. The agent of its node takes it off.
	LocalDirectory = localvolume.Finalizer
)

// LocalRefusal returns why there is no local volume for a claim, or "".
func LocalRefusal(claim *corev1.PersistentVolumeClaim) string {
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return fmt.Sprintf("volumes of %s are on one node: access mode %s is not possible, ReadWriteOnce and ReadWriteOncePod are", Local, mode)
		}
	}
	if claim.Spec.Selector != nil {
		return "claim.Spec.Selector is not supported for dynamic provisioning"
	}
	if claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil { // an empty volume in its place would be taken for the data
		return fmt.Sprintf("volumes of %s are not made of a data source, neither a snapshot nor another claim", Local)
	}
	return ""
}

// NewLocal returns the local volume of a claim on the node with this hostname label, bound to the claim.
func NewLocal(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, hostname string) *corev1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{storage.AnnDynamicallyProvisioned: Local},
			Labels:      map[string]string{localvolume.NodeLabel: hostname},
			Finalizers:  []string{VolumeProtection, LocalDirectory},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:         corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:      slices.Clone(claim.Spec.AccessModes),
			StorageClassName: class.Name,
			VolumeMode:       ptr.To(ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)),
			MountOptions:     slices.Clone(class.MountOptions),
			ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
				ResourceVersion: claim.ResourceVersion},
			PersistentVolumeReclaimPolicy: ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: Local, VolumeHandle: name, VolumeAttributes: maps.Clone(class.Parameters)}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{hostname}}}}}}},
		},
	}
}

// LocalHost returns the hostname label of the node that has a local volume; "" if v is none.
func LocalHost(v *corev1.PersistentVolume) string { return localvolume.Host(v) }

// LocalRoom returns how many bytes local volumes may take on a node; limited is false where that is not known.
func LocalRoom(node *corev1.Node) (bytes int64, limited bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(node.Annotations[LocalCapacity]), 10, 64)
	return n, err == nil && n >= 0
}

// Bytes returns how much a volume takes.
func Bytes(v *corev1.PersistentVolume) int64 {
	return amount.Units(v.Spec.Capacity[corev1.ResourceStorage])
}

// Wanted returns how much a claim asks for.
func Wanted(claim *corev1.PersistentVolumeClaim) int64 {
	return amount.Units(claim.Spec.Resources.Requests[corev1.ResourceStorage])
}
