package statefulset

import (
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The owner references of claims carry out persistentVolumeClaimRetentionPolicy (KEP-1847): one to the set deletes a claim with the set,
// one to a pod beyond the replicas deletes it with that pod.

func claimName(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, ordinal int) string {
	return template.Name + "-" + set.Name + "-" + strconv.Itoa(ordinal)
}

// claimsOf returns the claims of the pod with an ordinal, in the order of their templates.
func claimsOf(set *appsv1.StatefulSet, ordinal int) []*corev1.PersistentVolumeClaim {
	var out []*corev1.PersistentVolumeClaim
	for i := range set.Spec.VolumeClaimTemplates {
		c := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		c.Name, c.Namespace = claimName(set, c, ordinal), set.Namespace
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, set.Spec.Selector.MatchLabels)
		out = append(out, c)
	}
	return out
}

// missing plans the claims of p that are not there. What the policy makes of them is known now, but for p's UID.
func (s *step) missing(p *corev1.Pod) {
	for _, c := range claimsOf(s.set, ordinalOf(p)) {
		if s.obs.claims[c.Name] != nil {
			continue
		}
		if deletesWithSet(s.set) {
			c.OwnerReferences = append(c.OwnerReferences, controllerRef(s.set, setKind()))
		}
		s.act.claims = append(s.act.claims, c)
	}
}

// own plans the owner references of the claims of p that are there.
func (s *step) own(p *corev1.Pod) {
	condemned := ordinalOf(p) < s.start() || ordinalOf(p) >= s.end()
	for _, c := range claimsOf(s.set, ordinalOf(p)) {
		there := s.obs.claims[c.Name]
		if there == nil || slices.ContainsFunc(s.act.owned, func(o *corev1.PersistentVolumeClaim) bool { return o.Name == c.Name }) {
			continue
		}
		refs, conflict := wantedRefs(s.set, p, there, condemned)
		if conflict {
			s.act.conflicting = append(s.act.conflicting, there.Name)
		}
		if !apiequality.Semantic.DeepEqual(refs, there.OwnerReferences) {
			there = there.DeepCopy()
			there.OwnerReferences = refs
			s.act.owned = append(s.act.owned, there)
		}
	}
}

func policyOf(set *appsv1.StatefulSet) (whenDeleted, whenScaled bool) {
	policy := set.Spec.PersistentVolumeClaimRetentionPolicy
	if policy == nil {
		return false, false
	}
	const del = appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	return policy.WhenDeleted == del, policy.WhenScaled == del
}

func deletesWithSet(set *appsv1.StatefulSet) bool { deleted, _ := policyOf(set); return deleted }
func deletesScaled(set *appsv1.StatefulSet) bool  { _, scaled := policyOf(set); return scaled }

// refersTo reports whether ref has the kind and name of obj, if perhaps the UID of one that had them before.
func refersTo(ref metav1.OwnerReference, obj metav1.Object, kind schema.GroupVersionKind) bool {
	return ref.APIVersion == kind.GroupVersion().String() && ref.Kind == kind.Kind && ref.Name == obj.GetName()
}

// staleRef reports whether a claim belongs to a predecessor of obj with the same name.
func staleRef(c *corev1.PersistentVolumeClaim, obj metav1.Object, kind schema.GroupVersionKind) bool {
	return slices.ContainsFunc(c.OwnerReferences, func(r metav1.OwnerReference) bool { return refersTo(r, obj, kind) && r.UID != obj.GetUID() })
}

// wantedRefs returns the owner references that the claim c of p is to have. conflict reports that somebody else controls c, so that the
// policy does not hold for it.
func wantedRefs(set *appsv1.StatefulSet, p *corev1.Pod, c *corev1.PersistentVolumeClaim, condemned bool) (refs []metav1.OwnerReference, conflict bool) {
	if staleRef(c, set, setKind()) || staleRef(c, p, podKind()) {
		return c.OwnerReferences, false // what belongs to a predecessor is the garbage collector's
	}
	ours := func(r metav1.OwnerReference) bool { return refersTo(r, set, setKind()) || refersTo(r, p, podKind()) }
	others := slices.DeleteFunc(slices.Clone(c.OwnerReferences), ours)
	whenDeleted, whenScaled := policyOf(set)
	var want *metav1.OwnerReference
	switch {
	case condemned && whenScaled:
		want = metav1.NewControllerRef(p, podKind())
	case whenDeleted && !(condemned && whenScaled):
		want = metav1.NewControllerRef(set, setKind())
	}
	if whenDeleted || whenScaled {
		conflict = slices.ContainsFunc(others, func(r metav1.OwnerReference) bool { return r.Controller != nil && *r.Controller })
	}
	switch {
	case want == nil || conflict:
		return others, conflict
	case slices.ContainsFunc(c.OwnerReferences, func(r metav1.OwnerReference) bool { return apiequality.Semantic.DeepEqual(r, *want) }) && len(others) == len(c.OwnerReferences)-1:
		return c.OwnerReferences, false // in whatever order
	}
	return append(others, *want), false
}
