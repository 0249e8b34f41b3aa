package quota

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// Applies tells whether a quota counts obj, of res: it limits something that such objects use, and obj is in all of its scopes.
func Applies(q *corev1.ResourceQuota, hard corev1.ResourceList, res *api.Resource, obj api.Object) bool {
	measured := false
	for name := range hard {
		measured = measured || Measures(res, name)
	}
	if !measured {
		return false
	}
	for _, s := range q.Spec.Scopes {
		if !inScope(obj, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists}) {
			return false
		}
	}
	if q.Spec.ScopeSelector != nil {
		for _, r := range q.Spec.ScopeSelector.MatchExpressions {
			if !inScope(obj, r) {
				return false
			}
		}
	}
	return true
}

// inScope: only pods have scopes, and claims that of their volume attributes class.
func inScope(obj api.Object, r corev1.ScopedResourceSelectorRequirement) bool {
	switch o := obj.(type) {
	case *corev1.PersistentVolumeClaim:
		return r.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass && claimInScope(o, r)
	case *corev1.Pod:
		switch r.ScopeName {
		case corev1.ResourceQuotaScopeTerminating:
			return o.Spec.ActiveDeadlineSeconds != nil
		case corev1.ResourceQuotaScopeNotTerminating:
			return o.Spec.ActiveDeadlineSeconds == nil
		case corev1.ResourceQuotaScopeBestEffort:
			return bestEffort(o)
		case corev1.ResourceQuotaScopeNotBestEffort:
			return !bestEffort(o)
		case corev1.ResourceQuotaScopePriorityClass:
			return matches(o.Spec.PriorityClassName, r)
		case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			return crossNamespace(o.Spec.Affinity)
		}
	}
	return false
}

// matches compares a value, "" for none, with what a requirement asks.
func matches(value string, r corev1.ScopedResourceSelectorRequirement) bool {
	switch r.Operator {
	case corev1.ScopeSelectorOpExists:
		return value != ""
	case corev1.ScopeSelectorOpDoesNotExist:
		return value == ""
	case corev1.ScopeSelectorOpIn:
		return value != "" && slices.Contains(r.Values, value)
	case corev1.ScopeSelectorOpNotIn:
		return !slices.Contains(r.Values, value)
	}
	return false
}

// claimInScope: a claim counts for the class it wants and for those it still has (KEP-3751).
func claimInScope(c *corev1.PersistentVolumeClaim, r corev1.ScopedResourceSelectorRequirement) bool {
	names := []string{""}
	if n := c.Spec.VolumeAttributesClassName; n != nil {
		names[0] = *n
	}
	if n := c.Status.CurrentVolumeAttributesClassName; n != nil {
		names = append(names, *n)
	}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		names = append(names, m.TargetVolumeAttributesClassName)
	}
	return slices.ContainsFunc(names, func(n string) bool { return matches(n, r) })
}

// bestEffort: no container, nor the pod as a whole, asks for CPU or memory.
func bestEffort(pod *corev1.Pod) bool {
	asks := func(r *corev1.ResourceRequirements) bool {
		for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if q, ok := list[name]; ok && !q.IsZero() {
					return true
				}
			}
		}
		return false
	}
	any := func(c corev1.Container) bool { return asks(&c.Resources) }
	return !(pod.Spec.Resources != nil && asks(pod.Spec.Resources) ||
		slices.ContainsFunc(pod.Spec.Containers, any) || slices.ContainsFunc(pod.Spec.InitContainers, any))
}

// crossNamespace tells whether an affinity looks at pods of other namespaces.
func crossNamespace(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	add := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		terms = append(terms, required...)
		for i := range preferred {
			terms = append(terms, preferred[i].PodAffinityTerm)
		}
	}
	if p := a.PodAffinity; p != nil {
		add(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		add(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}
