// Package match decides which writes an admission webhook or policy is asked about.
//
// What flows through it: a configuration's rules and selectors become [Criteria], once; each write is a [Request] that they choose or not.
// [Criteria.Choose] looks at rules, exclusions and the objects' labels; where [Criteria.AsksNamespace], the labels of the namespace
// decide, too, which only then have to be found. What must stay true: nothing here reads, waits or changes anything; the answers are those of
// kube-apiserver's webhook and policy matchers (TestRules, TestEquivalents, TestSelectors, TestExclusions).
package match

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Target is a resource in one version, and the kind of the objects that are exchanged with it.
type Target struct {
	Resource schema.GroupVersionResource
	Kind     schema.GroupVersionKind
}

// Request is a write, or a connection, that is to be admitted.
type Request struct {
	// Operation is CREATE, UPDATE, DELETE or CONNECT.
	Operation string
	// Target is what the request names.
	Target
	Subresource string
	// Namespace is where the object is; a Namespace is in itself.
	Namespace, Name string
	// Labels are those of the object and of what was there before, as far as there are any.
	Labels []labels.Set
	// Equivalents are the same resource in all its versions. One whose Kind is empty lacks the subresource.
	Equivalents []Target
}

// Criteria choose requests.
type Criteria struct {
	rules, except       []admissionregistrationv1.NamedRuleWithOperations
	everything          bool // there are no rules, and all requests are meant
	equivalent          bool
	namespaces, objects labels.Selector
	broken              error // of a selector that cannot be read
}

// Webhook returns the Criteria of a webhook.
func Webhook(
	rules []admissionregistrationv1.RuleWithOperations, policy *admissionregistrationv1.MatchPolicyType, namespaces, objects *metav1.LabelSelector,
) *Criteria {
	c := &Criteria{equivalent: policy != nil && *policy == admissionregistrationv1.Equivalent}
	for _, r := range rules {
		c.rules = append(c.rules, admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: r})
	}
	c.read(namespaces, objects)
	return c
}

// Policy returns the Criteria of a policy or of a binding. What says nothing means everything.
func Policy(m *admissionregistrationv1.MatchResources) *Criteria {
	if m == nil {
		m = &admissionregistrationv1.MatchResources{}
	}
	c := &Criteria{
		rules: m.ResourceRules, except: m.ExcludeResourceRules, everything: len(m.ResourceRules) == 0,
		equivalent: m.MatchPolicy != nil && *m.MatchPolicy == admissionregistrationv1.Equivalent,
	}
	c.read(orAll(m.NamespaceSelector), orAll(m.ObjectSelector))
	return c
}

func orAll(s *metav1.LabelSelector) *metav1.LabelSelector {
	if s == nil {
		return &metav1.LabelSelector{}
	}
	return s
}

func (c *Criteria) read(namespaces, objects *metav1.LabelSelector) {
	if c.namespaces, c.broken = metav1.LabelSelectorAsSelector(namespaces); c.broken == nil {
		c.objects, c.broken = metav1.LabelSelectorAsSelector(objects)
	}
}

// Choose reports whether c chooses a request, and in which version, as far as the labels of its namespace do not decide. An error is an
// API status.
func (c *Criteria) Choose(r *Request) (Target, bool, error) {
	if c.broken == nil && !c.objects.Empty() && !slices.ContainsFunc(r.Labels, func(l labels.Set) bool { return c.objects.Matches(l) }) {
		return Target{}, false, nil
	}
	if _, excluded, err := c.find(c.except, r); excluded || err != nil {
		return Target{}, false, err
	}
	target, chosen := r.Target, c.everything
	if !chosen {
		var err error
		if target, chosen, err = c.find(c.rules, r); !chosen || err != nil {
			return Target{}, false, err
		}
	}
	if c.broken != nil {
		return Target{}, false, apierrors.NewInternalError(c.broken)
	}
	return target, true, nil
}

// AsksNamespace reports whether the labels of a request's namespace decide about one that c chooses. Objects outside namespaces are never exempt.
func (c *Criteria) AsksNamespace(r *Request) bool {
	return (r.Namespace != "" || r.Resource.Resource == "namespaces") && !c.namespaces.Empty()
}

// ChoosesNamespace reports whether c chooses requests in a namespace that has these labels.
func (c *Criteria) ChoosesNamespace(l labels.Set) bool { return c.namespaces.Matches(l) }

// find returns in which version one of the rules means a request: the one that the request names, or else an equivalent one, by the order
// of the rules.
func (c *Criteria) find(rules []admissionregistrationv1.NamedRuleWithOperations, r *Request) (Target, bool, error) {
	for i := range rules {
		if means(&rules[i], r, r.Resource) {
			return r.Target, true, nil
		}
	}
	if !c.equivalent {
		return Target{}, false, nil
	}
	for i := range rules {
		for _, e := range r.Equivalents {
			if e.Resource == r.Resource || !means(&rules[i], r, e.Resource) {
				continue
			}
			if e.Kind.Empty() {
				return Target{}, false, apierrors.NewInternalError(fmt.Errorf("unable to convert to %v: unknown kind", e.Resource))
			}
			return e, true, nil
		}
	}
	return Target{}, false, nil
}

// means reports whether a rule means a request, were it one of resource.
func means(rule *admissionregistrationv1.NamedRuleWithOperations, r *Request, resource schema.GroupVersionResource) bool {
	return inScope(rule.Scope, r.Namespace, resource) &&
		slices.ContainsFunc(rule.Operations, func(op admissionregistrationv1.OperationType) bool {
			return op == admissionregistrationv1.OperationAll || string(op) == r.Operation
		}) &&
		anyOr(rule.APIGroups, resource.Group) && anyOr(rule.APIVersions, resource.Version) &&
		slices.ContainsFunc(rule.Resources, func(name string) bool {
			res, sub, _ := strings.Cut(name, "/")
			return (res == "*" || res == resource.Resource) && (sub == "*" || sub == r.Subresource)
		}) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, r.Name))
}

func anyOr(items []string, wanted string) bool {
	return slices.ContainsFunc(items, func(item string) bool { return item == "*" || item == wanted })
}

// inScope reports whether a resource is of a scope. Namespaces are outside of namespaces.
func inScope(scope *admissionregistrationv1.ScopeType, namespace string, resource schema.GroupVersionResource) bool {
	if scope == nil {
		return true
	}
	outside := namespace == "" || resource == schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	switch *scope {
	case admissionregistrationv1.AllScopes:
		return true
	case admissionregistrationv1.NamespacedScope:
		return !outside
	case admissionregistrationv1.ClusterScope:
		return outside
	}
	return false
}
