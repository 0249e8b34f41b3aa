package resourceclaim

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// made is what becomes of a pod's claims from templates.
type made struct {
	create []*resourcev1.ResourceClaim
	// statuses are the pod's status.resourceClaimStatuses once all in create are there, under the names that these then have.
	statuses []corev1.PodResourceClaimStatus
	// missing are the templates that are not there, by the name of the pod's claim.
	missing map[string]string
}

// planPod decides which claims a pod still needs: owned are those that it controls, templates those of its namespace that it names. A claim
// that was made for it and is not yet in its status is found by its annotation.
func planPod(pod *corev1.Pod, owned []*resourcev1.ResourceClaim, templates map[string]*resourcev1.ResourceClaimTemplate) made {
	out := made{missing: map[string]string{}}
	if pod.DeletionTimestamp != nil || done(pod) {
		return out
	}
	byName, byEntry := map[string]bool{}, map[string]string{}
	for _, c := range owned {
		byName[c.Name] = true
		if entry, ok := c.Annotations[resourcev1.PodResourceClaimAnnotation]; ok && c.DeletionTimestamp == nil {
			byEntry[entry] = c.Name
		}
	}
	for i := range pod.Spec.ResourceClaims {
		entry := &pod.Spec.ResourceClaims[i]
		if entry.ResourceClaimTemplateName == nil {
			continue
		}
		name, _, err := resourceclaim.Name(pod, entry)
		if err == nil && (name == nil || byName[*name]) {
			continue // none is needed, or it is there
		}
		if name, ok := byEntry[entry.Name]; ok {
			out.statuses = append(out.statuses, corev1.PodResourceClaimStatus{Name: entry.Name, ResourceClaimName: &name})
			continue
		}
		template := templates[*entry.ResourceClaimTemplateName]
		if template == nil {
			out.missing[entry.Name] = *entry.ResourceClaimTemplateName
			continue
		}
		out.create = append(out.create, fromTemplate(pod, entry.Name, template))
	}
	return out
}

// fromTemplate returns the claim that a template makes for a pod.
func fromTemplate(pod *corev1.Pod, entry string, template *resourcev1.ResourceClaimTemplate) *resourcev1.ResourceClaim {
	annotations := maps.Clone(template.Spec.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[resourcev1.PodResourceClaimAnnotation] = entry
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: generateName(pod.Name, entry),
			Labels: maps.Clone(template.Spec.Labels), Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID, Controller: new(true)}},
		},
		Spec: *template.Spec.Spec.DeepCopy(),
	}
}

// longest is how long the part of a name before the generated one may be: both make a DNS label.
const longest = 57

// generateName returns POD-ENTRY-, or as much of both as has room, in proportion.
func generateName(pod, entry string) string {
	full := pod + "-" + entry + "-"
	if len(full) <= longest {
		return full
	}
	return pod[:len(pod)*longest/len(full)] + "-" + entry[:len(entry)*longest/len(full)]
}

// merged returns the statuses of a pod with more of them, in the order of their names.
func merged(have, more []corev1.PodResourceClaimStatus) []corev1.PodResourceClaimStatus {
	byName := map[string]corev1.PodResourceClaimStatus{}
	for _, s := range slices.Concat(have, more) {
		byName[s.Name] = s
	}
	out := make([]corev1.PodResourceClaimStatus, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

// done reports whether a pod has no use for devices any longer: it ended, or ends without ever having had a node.
func done(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil && pod.Spec.NodeName == ""
}

// change is what becomes of a claim.
type change struct {
	status  *resourcev1.ResourceClaimStatus // nil: stays as it is
	release bool                            // takes the finalizer off
	remove  bool                            // deletes the claim
	why     string
}

// planClaim decides about a claim: pods are those of its namespace by name, as far as it names them or they name it.
func planClaim(claim *resourcev1.ResourceClaim, pods map[string]*corev1.Pod) change {
	kept := stillReserved(claim, pods)
	lost := len(claim.Status.ReservedFor) - len(kept)
	reserved := append(slices.Clip(kept), wanting(claim, kept, pods)...)
	protected := slices.Contains(claim.Finalizers, resourcev1.Finalizer)
	var c change
	if lost > 0 || len(reserved) > len(kept) {
		c.status = claim.Status.DeepCopy()
		c.status.ReservedFor = reserved
	}
	// What was allocated by the scheduler is given back when the last one has done with it, and at the latest when the claim goes.
	if ends := claim.DeletionTimestamp != nil; protected && len(reserved) == 0 && (lost > 0 || ends) {
		if claim.Status.Allocation != nil {
			if c.status == nil {
				c.status = claim.Status.DeepCopy()
			}
			c.status.Allocation = nil
		}
		c.release = true
	}
	if len(reserved) == 0 && claim.DeletionTimestamp == nil {
		if owner := metav1.GetControllerOfNoCopy(claim); owner != nil && owner.Kind == "Pod" && owner.APIVersion == "v1" {
			// A pod that is gone leaves its claims to the garbage collector.
			if pod := pods[owner.Name]; pod != nil && (pod.UID != owner.UID || done(pod)) {
				c.remove, c.why = true, fmt.Sprintf("pod %s has no use for it", owner.Name)
			}
		}
	}
	return c
}

// stillReserved returns the reservations that hold. Of those that are not for pods nothing is known here.
func stillReserved(claim *resourcev1.ResourceClaim, pods map[string]*corev1.Pod) []resourcev1.ResourceClaimConsumerReference {
	var kept []resourcev1.ResourceClaimConsumerReference
	for _, r := range claim.Status.ReservedFor {
		if r.APIGroup != "" || r.Resource != "pods" {
			kept = append(kept, r)
			continue
		}
		if pod := pods[r.Name]; pod != nil && pod.UID == r.UID && !done(pod) {
			kept = append(kept, r)
		}
	}
	return kept
}

// wanting returns the reservations of pods that got to their node without the scheduler's help.
func wanting(claim *resourcev1.ResourceClaim, kept []resourcev1.ResourceClaimConsumerReference, pods map[string]*corev1.Pod) []resourcev1.ResourceClaimConsumerReference {
	if claim.Status.Allocation == nil || claim.DeletionTimestamp != nil {
		return nil
	}
	var out []resourcev1.ResourceClaimConsumerReference
	for _, name := range slices.Sorted(maps.Keys(pods)) {
		pod := pods[name]
		if len(kept)+len(out) >= resourcev1.ResourceClaimReservedForMaxSize {
			return out
		}
		if pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil || done(pod) || !uses(pod, claim) {
			continue
		}
		if !slices.ContainsFunc(kept, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == pod.UID }) {
			out = append(out, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		}
	}
	return out
}

// uses reports whether pod names claim, and may use it if it was made for a pod.
func uses(pod *corev1.Pod, claim *resourcev1.ResourceClaim) bool {
	for name, own := range resourceclaim.PodClaims(pod) {
		if name == claim.Name {
			return !own || metav1.IsControlledBy(claim, pod)
		}
	}
	return false
}
