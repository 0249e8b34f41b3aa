package placement

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// term is one pod (anti-)affinity term, resolved: whom it means, and over which topology.
type term struct {
	key         string // names the set of pods it means; equal for equal terms
	topologyKey string
	namespaces  []string        // sorted
	inNamespace labels.Selector // or nil
	selector    labels.Selector
}

// weighted is a preferred term; weight is negative for anti-affinity.
type weighted struct {
	*term
	weight int64
}

// matches reports whether the term means a pod with these labels in namespace ns, itself labelled nsLabels.
func (t *term) matches(ns string, nsLabels, podLabels labels.Set) bool {
	if _, ok := slices.BinarySearch(t.namespaces, ns); !ok {
		if t.inNamespace == nil || !t.inNamespace.Matches(nsLabels) {
			return false
		}
	}
	return t.selector.Matches(podLabels)
}

// newTerm resolves a term of a pod with podLabels in namespace ns: no namespaces at all means the pod's own, and
// matchLabelKeys and mismatchLabelKeys add the pod's own values (KEP-3633; adding them twice changes nothing).
func newTerm(ns string, podLabels labels.Set, t *corev1.PodAffinityTerm) *term {
	out := &term{topologyKey: t.TopologyKey, namespaces: slices.Clone(t.Namespaces)}
	if len(out.namespaces) == 0 && t.NamespaceSelector == nil {
		out.namespaces = []string{ns}
	}
	slices.Sort(out.namespaces)
	inNamespace := ""
	if t.NamespaceSelector != nil {
		out.inNamespace = selectorOf(t.NamespaceSelector)
		inNamespace = fmt.Sprintf("%q", out.inNamespace.String())
		if out.inNamespace.Empty() {
			inNamespace = "any"
		}
	}
	out.selector = selectorOf(t.LabelSelector)
	out.selector = withOwnValues(out.selector, podLabels, t.MatchLabelKeys, selection.In)
	out.selector = withOwnValues(out.selector, podLabels, t.MismatchLabelKeys, selection.NotIn)
	out.key = strings.Join(out.namespaces, ",") + "|" + inNamespace + "|" + selectorKey(out.selector)
	return out
}

// selectorOf parses s. nil, and what the API server would have refused, selects nothing.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}

// selectorKey writes a selector so that nothing and everything differ.
func selectorKey(s labels.Selector) string {
	if _, selectable := s.Requirements(); !selectable {
		return "none"
	}
	return "=" + s.String()
}

// withOwnValues narrows a selector to pods that have (or, NotIn, lack) the pod's own values of keys.
func withOwnValues(s labels.Selector, podLabels labels.Set, keys []string, op selection.Operator) labels.Selector {
	for _, key := range keys {
		value, ok := podLabels[key]
		if !ok {
			continue
		}
		if r, err := labels.NewRequirement(key, op, []string{value}); err == nil {
			s = s.Add(*r)
		}
	}
	return s
}

// affinityTerms are all pod affinity terms of one pod.
type affinityTerms struct {
	required  []*term // affinity: all must be met
	anti      []*term // anti-affinity
	preferred []weighted
}

func newAffinityTerms(ns string, podLabels labels.Set, a *corev1.Affinity) affinityTerms {
	var out affinityTerms
	if a == nil {
		return out
	}
	if p := a.PodAffinity; p != nil {
		for i := range p.RequiredDuringSchedulingIgnoredDuringExecution {
			out.required = append(out.required, newTerm(ns, podLabels, &p.RequiredDuringSchedulingIgnoredDuringExecution[i]))
		}
		for i := range p.PreferredDuringSchedulingIgnoredDuringExecution {
			w := &p.PreferredDuringSchedulingIgnoredDuringExecution[i]
			out.preferred = append(out.preferred, weighted{newTerm(ns, podLabels, &w.PodAffinityTerm), int64(w.Weight)})
		}
	}
	if p := a.PodAntiAffinity; p != nil {
		for i := range p.RequiredDuringSchedulingIgnoredDuringExecution {
			out.anti = append(out.anti, newTerm(ns, podLabels, &p.RequiredDuringSchedulingIgnoredDuringExecution[i]))
		}
		for i := range p.PreferredDuringSchedulingIgnoredDuringExecution {
			w := &p.PreferredDuringSchedulingIgnoredDuringExecution[i]
			out.preferred = append(out.preferred, weighted{newTerm(ns, podLabels, &w.PodAffinityTerm), -int64(w.Weight)})
		}
	}
	return out
}
