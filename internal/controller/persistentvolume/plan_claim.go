package persistentvolume

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// claimView is what the decision about a claim depends on.
type claimView struct {
	claim *corev1.PersistentVolumeClaim
	// volumes are those of its class that are free, and those that name it.
	volumes []*corev1.PersistentVolume
	// named is the volume that it names, nil if there is none.
	named *corev1.PersistentVolume
	// class is that of the claim, fallback the default one; nil where there is none.
	class, fallback *storagev1.StorageClass
	// waiting are the names of the pods that use it and have no node.
	waiting []string
}

// outcome is what becomes of a claim or a volume: next states, nil where one stays as it is.
type outcome struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
	remove bool // deletes the volume, once the rest is written
	// local reports whether the claim is to get a local volume from the controller.
	local  bool
	events []event.Event
	// failure, if set, says that what is seen contradicts itself: to be looked at again.
	failure error
}

// planClaim decides about a claim.
func planClaim(v claimView) outcome {
	if metav1.HasAnnotation(v.claim.ObjectMeta, storage.AnnBindCompleted) {
		return planBound(v)
	}
	if v.claim.Spec.VolumeName != "" {
		return planNamed(v)
	}
	match, err := volume.Match(v.claim, v.volumes, volume.Delays(v.class))
	switch {
	case err != nil:
		return outcome{failure: fmt.Errorf("finding a volume: %w", err)}
	case match != nil:
		return bind(match, v.claim)
	case !storage.PersistentVolumeClaimHasClass(v.claim) && v.fallback != nil: // KEP-3333
		next := v.claim.DeepCopy()
		next.Spec.StorageClassName = &v.fallback.Name
		return outcome{claim: next}
	case v.class != nil && v.class.Provisioner == volume.Local && volume.LocalRefusal(v.claim) != "": // no pod will help
		return planProvision(v)
	case volume.Delays(v.class) && !storage.IsDelayBindingProvisioning(v.claim):
		return pending(v.claim, consumer(v))
	case storage.GetPersistentVolumeClaimClass(v.claim) != "":
		return planProvision(v)
	}
	return pending(v.claim, event.Normal(v.claim, "FailedBinding", "no persistent volumes available for this claim and no storage class is set"))
}

// bind is the outcome of binding v and claim to each other.
func bind(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) outcome {
	var o outcome
	o.volume, o.claim, o.failure = volume.Bind(v, claim)
	return o
}

// consumer says for whom binding waits.
func consumer(v claimView) event.Event {
	switch names := slices.Sorted(slices.Values(v.waiting)); len(names) {
	case 0:
		return event.Normal(v.claim, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
	case 1:
		return event.Normal(v.claim, "WaitForPodScheduled", "waiting for pod %s to be scheduled", names[0])
	default:
		return event.Normal(v.claim, "WaitForPodScheduled", "waiting for pods %s to be scheduled", strings.Join(names, ","))
	}
}

// pending is the outcome for a claim that has no volume yet.
func pending(claim *corev1.PersistentVolumeClaim, events ...event.Event) outcome {
	return outcome{claim: phased(claim, corev1.ClaimPending), events: events}
}

// phased returns a claim in a phase in which it has no volume; nil if it is that already.
func phased(claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
	s := &claim.Status
	if s.Phase == phase && s.AccessModes == nil && s.Capacity == nil && s.CurrentVolumeAttributesClassName == nil {
		return nil
	}
	next := claim.DeepCopy()
	next.Status.Phase = phase
	next.Status.AccessModes, next.Status.Capacity, next.Status.CurrentVolumeAttributesClassName = nil, nil, nil
	return next
}

// planNamed decides about a claim that names its volume and is not bound yet.
func planNamed(v claimView) outcome {
	switch ref := claimOf(v.named); {
	case v.named == nil:
		return pending(v.claim)
	case ref == nil:
		if err := volume.Unsuitable(v.named, v.claim); err != nil {
			return pending(v.claim, event.Warning(v.claim, "VolumeMismatch", "Cannot bind to requested volume %q: %s", v.named.Name, err))
		}
		return bind(v.named, v.claim)
	case storage.IsVolumeBoundToClaim(v.named, v.claim):
		return bind(v.named, v.claim)
	}
	taken := event.Warning(v.claim, "FailedBinding", "volume %q already bound to a different claim.", v.named.Name)
	if !metav1.HasAnnotation(v.claim.ObjectMeta, storage.AnnBoundByController) {
		return pending(v.claim, taken)
	}
	// Somebody took the annotation of a completed binding off. What is right is not for the controller to guess.
	return outcome{events: []event.Event{taken}}
}

func claimOf(v *corev1.PersistentVolume) *corev1.ObjectReference {
	if v == nil {
		return nil
	}
	return v.Spec.ClaimRef
}

// planBound decides about a claim that has been bound.
func planBound(v claimView) outcome {
	lost := func(reason, message string) outcome {
		if v.claim.Status.Phase == corev1.ClaimLost {
			return outcome{}
		}
		return outcome{claim: phased(v.claim, corev1.ClaimLost), events: []event.Event{event.Warning(v.claim, reason, "%s", message)}}
	}
	switch ref := claimOf(v.named); {
	case v.claim.Spec.VolumeName == "":
		return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	case v.named == nil:
		return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case ref == nil || ref.UID == v.claim.UID:
		return bind(v.named, v.claim)
	}
	return lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}
