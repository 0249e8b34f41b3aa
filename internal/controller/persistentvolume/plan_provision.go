package persistentvolume

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// inTree begins the names of volumes that Kubernetes once made itself.
const inTree = "kubernetes.io/"

// planProvision decides about a claim for which a volume is to be made.
func planProvision(v claimView) outcome {
	failed := func(format string, args ...any) outcome {
		return pending(v.claim, event.Warning(v.claim, "ProvisioningFailed", format, args...))
	}
	name := storage.GetPersistentVolumeClaimClass(v.claim)
	switch {
	case v.class == nil:
		return failed("storageclass.storage.k8s.io %q not found", name)
	case v.class.Provisioner == volume.Local:
		if why := volume.LocalRefusal(v.claim); why != "" {
			return failed("%s", why)
		}
		return outcome{local: true, claim: provisionedBy(v.claim, volume.Local)}
	case strings.HasPrefix(v.class.Provisioner, inTree):
		return failed("no volume plugin matched name: %s", v.class.Provisioner)
	}
	return outcome{claim: provisionedBy(v.claim, v.class.Provisioner), events: []event.Event{event.Normal(v.claim, "ExternalProvisioning",
		"Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. "+
			"If volume creation is delayed, please verify that the provisioner is running and correctly registered.", v.class.Provisioner)}}
}

// provisionedBy returns a claim that says who is to make its volume; nil if it does already.
func provisionedBy(claim *corev1.PersistentVolumeClaim, provisioner string) *corev1.PersistentVolumeClaim {
	if claim.Annotations[storage.AnnStorageProvisioner] == provisioner && claim.Annotations[storage.AnnBetaStorageProvisioner] == provisioner {
		return nil
	}
	next := claim.DeepCopy()
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, storage.AnnBetaStorageProvisioner, provisioner)
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, storage.AnnStorageProvisioner, provisioner)
	return next
}

// planLocal returns the local volume of a claim, or why there can be none now. It goes to the node that the scheduler selected, else to the
// ready one that has given least to local volumes and has room.
func planLocal(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, nodes []*corev1.Node, volumes []*corev1.PersistentVolume) (*corev1.PersistentVolume, string) {
	used := map[string]int64{}
	for _, v := range volumes {
		if host := volume.LocalHost(v); host != "" {
			used[host] = amount.Add(used[host], volume.Bytes(v))
		}
	}
	size := volume.Wanted(claim)
	selected := claim.Annotations[storage.AnnSelectedNode]
	able := slices.DeleteFunc(slices.Clone(nodes), func(n *corev1.Node) bool {
		host := n.Labels[corev1.LabelHostname]
		room, limited := volume.LocalRoom(n)
		return selected != "" && n.Name != selected || host == "" || limited && amount.Add(used[host], size) > room ||
			!volume.Reaches(class, n) || selected == "" && !usable(n)
	})
	if len(able) == 0 {
		if selected != "" {
			return nil, fmt.Sprintf("node %s has no room for a local volume of %d bytes", selected, size)
		}
		return nil, fmt.Sprintf("no node is ready, takes pods and has room for a local volume of %d bytes", size)
	}
	best := slices.MinFunc(able, func(a, b *corev1.Node) int {
		return cmp.Or(cmp.Compare(used[a.Labels[corev1.LabelHostname]], used[b.Labels[corev1.LabelHostname]]), cmp.Compare(a.Name, b.Name))
	})
	return volume.NewLocal(claim, class, best.Labels[corev1.LabelHostname]), ""
}

// usable reports whether a node is ready and takes pods.
func usable(n *corev1.Node) bool {
	if n.Spec.Unschedulable || slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectPreferNoSchedule }) {
		return false
	}
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
