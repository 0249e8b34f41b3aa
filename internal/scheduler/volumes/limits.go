package volumes

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api/volume"
)

// handle is a volume of a CSI driver.
type handle struct{ driver, volume string }

// handleOf returns the volume that a claim has, or, where it has none yet, that which its class would give it. ok is false if that is none of CSI.
func (s *State) handleOf(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) (h handle, ok bool) {
	if v != nil {
		if v.Spec.CSI == nil {
			return handle{}, false
		}
		return handle{v.Spec.CSI.Driver, v.Spec.CSI.VolumeHandle}, true
	}
	class := s.classes[storage.GetPersistentVolumeClaimClass(claim)]
	if class == nil {
		return handle{}, false
	}
	return handle{class.Provisioner, "claim " + claim.Namespace + "/" + claim.Name}, true
}

// count returns why a node cannot have as many volumes as it would with the pod's, or "": a driver says in the CSINode how many it can attach,
// and in the CSIDriver whether pods need it there (KEP-5030).
func (w *Wants) count(node *corev1.Node) string {
	s := w.state
	more := map[handle]bool{}
	for _, v := range w.bound {
		if h, ok := s.handleOf(nil, v); ok {
			more[h] = true
		}
	}
	for _, claim := range w.missing {
		if h, ok := s.handleOf(claim, nil); ok {
			more[h] = true
		}
	}
	if len(more) == 0 {
		return ""
	}
	limits, there := s.limitsOf(node.Name)
	for h := range more {
		if d := s.drivers[h.driver]; d != nil && d.Spec.PreventPodSchedulingIfMissing != nil && *d.Spec.PreventPodSchedulingIfMissing && !there[h.driver] {
			return h.driver + " CSI driver is not installed on the node"
		}
	}
	if len(limits) == 0 {
		return ""
	}
	has := map[string]int{}
	for h := range s.attached(node.Name) {
		delete(more, h)
		has[h.driver]++
	}
	wants := map[string]int{}
	for h := range more {
		wants[h.driver]++
	}
	for driver, n := range wants {
		if limit, ok := limits[driver]; ok && has[driver]+n > limit {
			return reasonTooMany
		}
	}
	return ""
}

// limitsOf returns how many volumes of which driver a node can have, and which drivers it has.
func (s *State) limitsOf(node string) (limits map[string]int, there map[string]bool) {
	n := s.nodes[node]
	if n == nil {
		return nil, nil
	}
	limits, there = map[string]int{}, map[string]bool{}
	for _, d := range n.Spec.Drivers {
		there[d.Name] = true
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			limits[d.Name] = int(*d.Allocatable.Count)
		}
	}
	return limits, there
}

// attached returns the volumes of the pods that are placed on a node.
func (s *State) attached(node string) map[handle]bool {
	out := map[handle]bool{}
	for _, pod := range s.onNode[node] {
		for _, name := range volume.ClaimNames(pod) {
			key := types.NamespacedName{Namespace: pod.Namespace, Name: name}
			claim := s.claims[key]
			if claim == nil {
				continue
			}
			v := s.volumes[claim.Spec.VolumeName]
			if a := s.assumed[key]; v == nil && a != nil {
				v = a.volume
			}
			if h, ok := s.handleOf(claim, v); ok {
				out[h] = true
			}
		}
	}
	return out
}

// zones are the labels by which volumes and nodes say where they are, with the newer name of each.
func zones() map[string]string {
	return map[string]string{
		corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
		corev1.LabelTopologyZone: corev1.LabelTopologyZone, corev1.LabelTopologyRegion: corev1.LabelTopologyRegion,
	}
}

// inZone reports whether a node is where a volume can be used by its labels. A node that does not say where it is can use all.
func inZone(v *corev1.PersistentVolume, node *corev1.Node) bool {
	if len(v.Labels) == 0 {
		return true
	}
	keys, says := zones(), false
	for key := range keys {
		_, labelled := node.Labels[key]
		says = says || labelled
	}
	if !says {
		return true
	}
	for key, newer := range keys {
		values, limited := v.Labels[key]
		if !limited {
			continue
		}
		at, ok := node.Labels[key]
		if !ok {
			at, ok = node.Labels[newer]
		}
		if !ok || !slices.Contains(strings.Split(values, "__"), at) {
			return false
		}
	}
	return true
}
