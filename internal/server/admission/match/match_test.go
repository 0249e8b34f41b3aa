package match

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var equivalent, exact = admissionregistrationv1.Equivalent, admissionregistrationv1.Exact

func resource(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}

func target(group, version, name, kind string) Target {
	return Target{resource(group, version, name), schema.GroupVersionKind{Group: group, Version: version, Kind: kind}}
}

func rule(group, version, name string, ops ...admissionregistrationv1.OperationType) admissionregistrationv1.RuleWithOperations {
	return admissionregistrationv1.RuleWithOperations{Operations: ops, Rule: admissionregistrationv1.Rule{
		APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{name},
	}}
}

func scoped(scope admissionregistrationv1.ScopeType, r admissionregistrationv1.RuleWithOperations) admissionregistrationv1.RuleWithOperations {
	r.Scope = &scope
	return r
}

func all() *metav1.LabelSelector { return &metav1.LabelSelector{} }

var (
	newPod       = Request{Operation: "CREATE", Target: target("", "v1", "pods", "Pod"), Namespace: "a", Name: "p"}
	execution    = Request{Operation: "CONNECT", Target: target("", "v1", "pods", "PodExecOptions"), Subresource: "exec", Namespace: "a", Name: "p"}
	newNamespace = Request{Operation: "CREATE", Target: target("", "v1", "namespaces", "Namespace"), Namespace: "a", Name: "a"}
	newNode      = Request{Operation: "CREATE", Target: target("", "v1", "nodes", "Node"), Name: "n"}
)

// TestRules: each part of a rule has to mean the request, in one of its items; an asterisk means all.
func TestRules(t *testing.T) {
	const create, connect, anything = admissionregistrationv1.Create, admissionregistrationv1.Connect, admissionregistrationv1.OperationAll
	for _, tc := range []struct {
		name   string
		rule   admissionregistrationv1.RuleWithOperations
		r      Request
		chosen bool
	}{
		{"as it is", rule("", "v1", "pods", create), newPod, true},
		{"any", rule("*", "*", "*", anything), newPod, true},
		{"another operation", rule("", "v1", "pods", connect), newPod, false},
		{"another group", rule("apps", "v1", "pods", create), newPod, false},
		{"another version", rule("", "v2", "pods", create), newPod, false},
		{"another resource", rule("", "v1", "services", create), newPod, false},
		{"a subresource", rule("", "v1", "pods/exec", connect), execution, true},
		{"any subresource", rule("", "v1", "pods/*", connect), execution, true},
		{"any subresource, and none", rule("", "v1", "pods/*", create), newPod, true},
		{"that subresource of anything", rule("", "v1", "*/exec", connect), execution, true},
		{"any resource, without subresources", rule("", "v1", "*", connect), execution, false},
		{"any resource with its subresources", rule("", "v1", "*/*", connect), execution, true},
		{"within namespaces", scoped(admissionregistrationv1.NamespacedScope, rule("*", "*", "*", create)), newPod, true},
		{"within namespaces, a node", scoped(admissionregistrationv1.NamespacedScope, rule("*", "*", "*", create)), newNode, false},
		{"within namespaces, a namespace", scoped(admissionregistrationv1.NamespacedScope, rule("*", "*", "*", create)), newNamespace, false},
		{"outside, a pod", scoped(admissionregistrationv1.ClusterScope, rule("*", "*", "*", create)), newPod, false},
		{"outside, a node", scoped(admissionregistrationv1.ClusterScope, rule("*", "*", "*", create)), newNode, true},
		{"outside, a namespace", scoped(admissionregistrationv1.ClusterScope, rule("*", "*", "*", create)), newNamespace, true},
		{"anywhere", scoped(admissionregistrationv1.AllScopes, rule("*", "*", "*", create)), newNode, true},
		{"in a scope that nobody knows", scoped("Moon", rule("*", "*", "*", create)), newNode, false},
	} {
		c := Webhook([]admissionregistrationv1.RuleWithOperations{tc.rule}, &exact, all(), all())
		got, chosen, err := c.Choose(&tc.r)
		if chosen != tc.chosen || err != nil || chosen && got != tc.r.Target {
			t.Errorf("%s: %v %v %v", tc.name, got, chosen, err)
		}
	}
}

// TestEquivalents: a rule that names another version of the same resource is asked in that version, where the policy says so; one that
// names the request's own is preferred, and among the others the order of the rules decides.
func TestEquivalents(t *testing.T) {
	v1, v2 := target("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler"), target("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
	v3 := Target{Resource: resource("autoscaling", "v3", "horizontalpodautoscalers")}
	r := Request{Operation: "UPDATE", Target: v1, Namespace: "a", Equivalents: []Target{v2, v1, v3}}
	of := func(version string) admissionregistrationv1.RuleWithOperations {
		return rule("autoscaling", version, "horizontalpodautoscalers", admissionregistrationv1.Update)
	}
	for _, tc := range []struct {
		name   string
		rules  []admissionregistrationv1.RuleWithOperations
		policy *admissionregistrationv1.MatchPolicyType
		want   Target
		chosen bool
		wrong  bool
	}{
		{"its own, though later", []admissionregistrationv1.RuleWithOperations{of("v2"), of("v1")}, &equivalent, v1, true, false},
		{"another", []admissionregistrationv1.RuleWithOperations{of("v2")}, &equivalent, v2, true, false},
		{"another, but exactly", []admissionregistrationv1.RuleWithOperations{of("v2")}, &exact, Target{}, false, false},
		{"another, and no policy", []admissionregistrationv1.RuleWithOperations{of("v2")}, nil, Target{}, false, false},
		{"the first rule decides", []admissionregistrationv1.RuleWithOperations{of("v4"), of("v2"), of("v3")}, &equivalent, v2, true, false},
		{"one without the subresource", []admissionregistrationv1.RuleWithOperations{of("v3"), of("v2")}, &equivalent, Target{}, false, true},
	} {
		got, chosen, err := Webhook(tc.rules, tc.policy, all(), all()).Choose(&r)
		if got != tc.want || chosen != tc.chosen || apierrors.IsInternalError(err) != tc.wrong {
			t.Errorf("%s: %v %v %v", tc.name, got, chosen, err)
		}
	}
}

// TestSelectors: the labels of the object as it was or will be decide, those of the namespace where there is one; a missing selector of a webhook
// chooses nothing, a missing one of a policy everything.
func TestSelectors(t *testing.T) {
	rules := []admissionregistrationv1.RuleWithOperations{rule("*", "*", "*", "*")}
	on := &metav1.LabelSelector{MatchLabels: map[string]string{"hook": "on"}}
	choose := func(c *Criteria, r Request, l ...labels.Set) bool {
		t.Helper()
		r.Labels = l
		_, chosen, err := c.Choose(&r)
		if err != nil {
			t.Error(err)
		}
		return chosen
	}
	c := Webhook(rules, &exact, on, on)
	if choose(c, newPod) || choose(c, newPod, labels.Set{"hook": "off"}, nil) {
		t.Error("chosen without the label")
	}
	if !choose(c, newPod, labels.Set{"hook": "on"}) || !choose(c, newPod, nil, labels.Set{"hook": "on"}) {
		t.Error("not chosen by the label that the object has, or had")
	}
	if !c.AsksNamespace(&newPod) || !c.AsksNamespace(&newNamespace) || c.AsksNamespace(&newNode) || Webhook(rules, &exact, all(), on).AsksNamespace(&newPod) {
		t.Error("the namespace is asked, or not asked, wrongly")
	}
	if c.ChoosesNamespace(nil) || !c.ChoosesNamespace(labels.Set{"hook": "on"}) {
		t.Error("the labels of the namespace do not decide")
	}
	if choose(Webhook(rules, &exact, nil, nil), newPod, nil) || !choose(Policy(nil), newPod) {
		t.Error("selectors that are not there")
	}
	bad := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: "Near"}}}
	if _, _, err := Webhook(rules, &exact, bad, all()).Choose(&newPod); !apierrors.IsInternalError(err) {
		t.Errorf("a selector that cannot be read: %v", err)
	}
}

// TestExclusions: what is excluded is not chosen, in any version; names choose single objects.
func TestExclusions(t *testing.T) {
	named := func(r admissionregistrationv1.RuleWithOperations, names ...string) admissionregistrationv1.NamedRuleWithOperations {
		return admissionregistrationv1.NamedRuleWithOperations{ResourceNames: names, RuleWithOperations: r}
	}
	anything, v2 := rule("*", "*", "*", "*"), rule("", "v2", "pods", "*")
	r := newPod
	r.Equivalents = []Target{target("", "v2", "pods", "Pod"), r.Target}
	for _, tc := range []struct {
		name   string
		m      admissionregistrationv1.MatchResources
		chosen bool
	}{
		{"no rules", admissionregistrationv1.MatchResources{}, true},
		{"a name", admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{named(anything, "q", "p")}}, true},
		{"another name", admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{named(anything, "q")}}, false},
		{"excluded", admissionregistrationv1.MatchResources{ExcludeResourceRules: []admissionregistrationv1.NamedRuleWithOperations{named(anything, "p")}}, false},
		{"another excluded", admissionregistrationv1.MatchResources{ExcludeResourceRules: []admissionregistrationv1.NamedRuleWithOperations{named(anything, "q")}}, true},
		{"excluded in another version", admissionregistrationv1.MatchResources{
			MatchPolicy: &equivalent, ExcludeResourceRules: []admissionregistrationv1.NamedRuleWithOperations{named(v2)}}, false},
		{"excluded exactly in another version", admissionregistrationv1.MatchResources{
			MatchPolicy: &exact, ExcludeResourceRules: []admissionregistrationv1.NamedRuleWithOperations{named(v2)}}, true},
	} {
		if _, chosen, err := Policy(&tc.m).Choose(&r); chosen != tc.chosen || err != nil {
			t.Errorf("%s: %v %v", tc.name, chosen, err)
		}
	}
}
