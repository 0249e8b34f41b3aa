package authz

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// ruleSet is the rules of one role, arranged so that a request looks only at those that name its resource.
type ruleSet struct {
	rules []rbacv1.PolicyRule // as written
	exact map[resource][]*rbacv1.PolicyRule
	// wild are the rules with a * among their groups or resources, non those with nonResourceURLs.
	wild, non []*rbacv1.PolicyRule
}

// resource is what a rule names: deployments.apps, or its subresource scale.
type resource struct{ group, name, sub string }

func compile(rules []rbacv1.PolicyRule) *ruleSet {
	s := &ruleSet{rules: rules, exact: map[resource][]*rbacv1.PolicyRule{}}
	for i := range rules {
		r := &rules[i]
		if len(r.NonResourceURLs) > 0 {
			s.non = append(s.non, r)
		}
		if slices.Contains(r.APIGroups, "*") || slices.ContainsFunc(r.Resources, func(n string) bool { return strings.HasPrefix(n, "*") }) {
			s.wild = append(s.wild, r)
			continue
		}
		for _, g := range r.APIGroups {
			for _, n := range r.Resources {
				name, sub, _ := strings.Cut(n, "/")
				k := resource{g, name, sub}
				s.exact[k] = append(s.exact[k], r)
			}
		}
	}
	return s
}

// allow tells whether one of the rules allows a.
func (s *ruleSet) allow(a *Attributes) bool {
	if !a.IsResource {
		for _, r := range s.non {
			if matchesVerb(r, a.Verb) && slices.ContainsFunc(r.NonResourceURLs, func(u string) bool { return matchesURL(u, a.Path) }) {
				return true
			}
		}
		return false
	}
	for _, r := range s.exact[resource{a.Group, a.Resource, a.Subresource}] {
		if matchesVerb(r, a.Verb) && matchesName(r, a.Name) {
			return true
		}
	}
	for _, r := range s.wild {
		if matchesVerb(r, a.Verb) && matchesName(r, a.Name) && matchesGroup(r, a.Group) && matchesResource(r, a.Resource, a.Subresource) {
			return true
		}
	}
	return false
}

func matchesVerb(r *rbacv1.PolicyRule, verb string) bool {
	return slices.Contains(r.Verbs, verb) || slices.Contains(r.Verbs, "*")
}

func matchesGroup(r *rbacv1.PolicyRule, group string) bool {
	return slices.Contains(r.APIGroups, group) || slices.Contains(r.APIGroups, "*")
}

// matchesName: a rule with names does not cover requests without one, such as lists and creates.
func matchesName(r *rbacv1.PolicyRule, name string) bool {
	return len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, name)
}

// matchesResource knows "*" (everything), "pods", "pods/log" and "*/scale"; "pods/*" is none of RBAC's forms.
func matchesResource(r *rbacv1.PolicyRule, name, sub string) bool {
	for _, n := range r.Resources {
		if n == "*" {
			return true
		}
		ruleName, ruleSub, _ := strings.Cut(n, "/")
		if ruleSub == sub && (ruleName == name || ruleName == "*" && sub != "") {
			return true
		}
	}
	return false
}

// matchesURL: a * at the end matches whatever follows.
func matchesURL(pattern, path string) bool {
	if pattern == "*" || pattern == path {
		return true
	}
	prefix, ok := strings.CutSuffix(pattern, "*")
	return ok && strings.HasPrefix(path, prefix)
}
