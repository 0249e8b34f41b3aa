package authz

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Covers tells whether who holds, in namespace ("" for everywhere), everything that rules grant. Otherwise the error
// lists what is missing.
func (z *RBAC) Covers(who user.Info, namespace string, rules []rbacv1.PolicyRule) error {
	held, unresolved := z.rulesOf(who, namespace)
	var missing []rbacv1.PolicyRule
	for i := range rules {
		for _, atom := range split(&rules[i]) {
			if !slices.ContainsFunc(held, func(h rbacv1.PolicyRule) bool { return covers(&h, &atom) }) {
				missing = append(missing, atom)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	lines := make([]string, 0, len(missing))
	for _, r := range join(missing) {
		lines = append(lines, brief(&r))
	}
	slices.Sort(lines)
	msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		who.GetName(), who.GetGroups(), strings.Join(lines, "\n"))
	if len(unresolved) > 0 {
		msg += fmt.Sprintf("; resolution errors: [%s]", strings.Join(unresolved, ", "))
	}
	return fmt.Errorf("%s", msg)
}

// split takes a rule apart into rules of one verb and one resource of one group (with all its names), or one URL.
func split(r *rbacv1.PolicyRule) (atoms []rbacv1.PolicyRule) {
	for _, v := range r.Verbs {
		for _, u := range r.NonResourceURLs {
			atoms = append(atoms, rbacv1.PolicyRule{Verbs: []string{v}, NonResourceURLs: []string{u}})
		}
		for _, g := range r.APIGroups {
			for _, n := range r.Resources {
				atom := rbacv1.PolicyRule{Verbs: []string{v}, APIGroups: []string{g}, Resources: []string{n}}
				if len(r.ResourceNames) == 0 {
					atoms = append(atoms, atom)
				}
				for _, name := range r.ResourceNames {
					atom.ResourceNames = []string{name}
					atoms = append(atoms, atom)
				}
			}
		}
	}
	return atoms
}

// covers tells whether rule held grants all that atom does. A * in atom needs a * in held.
func covers(held, atom *rbacv1.PolicyRule) bool {
	if !matchesVerb(held, atom.Verbs[0]) {
		return false
	}
	if len(atom.NonResourceURLs) > 0 {
		return slices.ContainsFunc(held.NonResourceURLs, func(u string) bool { return matchesURL(u, atom.NonResourceURLs[0]) })
	}
	name, sub, _ := strings.Cut(atom.Resources[0], "/")
	if !matchesGroup(held, atom.APIGroups[0]) || !matchesResource(held, name, sub) {
		return false
	}
	return len(held.ResourceNames) == 0 || len(atom.ResourceNames) > 0 && slices.Contains(held.ResourceNames, atom.ResourceNames[0])
}

// join puts atoms that differ only in their verb together, for a readable message.
func join(atoms []rbacv1.PolicyRule) (rules []rbacv1.PolicyRule) {
	for _, a := range atoms {
		i := slices.IndexFunc(rules, func(r rbacv1.PolicyRule) bool {
			return slices.Equal(r.APIGroups, a.APIGroups) && slices.Equal(r.Resources, a.Resources) &&
				slices.Equal(r.ResourceNames, a.ResourceNames) && slices.Equal(r.NonResourceURLs, a.NonResourceURLs)
		})
		switch {
		case i < 0:
			rules = append(rules, a)
		case !slices.Contains(rules[i].Verbs, a.Verbs[0]):
			rules[i].Verbs = append(slices.Clip(rules[i].Verbs), a.Verbs[0])
		}
	}
	return rules
}

// brief writes a rule in one line: {APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}.
func brief(r *rbacv1.PolicyRule) string {
	var parts []string
	for _, f := range []struct {
		name   string
		values []string
	}{{"NonResourceURLs", r.NonResourceURLs}, {"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs}} {
		if len(f.values) > 0 {
			list, _ := json.Marshal(f.values) // a list of strings cannot fail
			parts = append(parts, fmt.Sprintf("%s:%s", f.name, list))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
