package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
)

// RBAC authorizes by the Roles and bindings that [RBAC.Set] and [RBAC.Remove] have told it about. Looking up a decision costs
// as much as its user and groups have bindings that count in the namespace, however many there are in all.
type RBAC struct {
	mu       sync.RWMutex
	roles    map[roleKey]*ruleSet
	bindings map[roleKey]*binding
	grants   map[subject]*grants

	followed map[*api.Resource]int64 // the newest revision of each kind that the index has taken in
	news     chan struct{}           // closed, and made anew, when followed grows
}

// roleKey names a role or a binding; those of the cluster have no namespace.
type roleKey struct{ namespace, name string }

func (k roleKey) kind() string {
	if k.namespace == "" {
		return "ClusterRole"
	}
	return "Role"
}

func (k roleKey) String() string {
	if k.namespace == "" {
		return k.name
	}
	return k.name + "/" + k.namespace
}

// subject is a user or a group; service accounts are users.
type subject struct {
	group bool
	name  string
}

// grants are the roles of one subject, everywhere and by namespace.
type grants struct {
	cluster []grant
	in      map[string][]grant
}

type grant struct {
	binding roleKey
	role    roleKey
	reason  string // why the subject has it, for people
}

type binding struct {
	role     roleKey
	subjects []subject
}

// NewRBAC returns an RBAC that knows no roles yet and so allows nothing.
func NewRBAC() *RBAC {
	return &RBAC{roles: map[roleKey]*ruleSet{}, bindings: map[roleKey]*binding{}, grants: map[subject]*grants{},
		followed: map[*api.Resource]int64{}, news: make(chan struct{})}
}

// Set takes a new or changed Role, ClusterRole, RoleBinding or ClusterRoleBinding into account. Other objects are ignored.
func (z *RBAC) Set(obj api.Object) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.set(obj)
}

func (z *RBAC) set(obj api.Object) {
	key := roleKey{obj.GetNamespace(), obj.GetName()}
	switch o := obj.(type) {
	case *rbacv1.Role:
		z.roles[key] = compile(o.Rules)
	case *rbacv1.ClusterRole:
		z.roles[key] = compile(o.Rules)
	case *rbacv1.RoleBinding:
		z.bind(key, o.RoleRef, o.Subjects)
	case *rbacv1.ClusterRoleBinding:
		z.bind(key, o.RoleRef, o.Subjects)
	}
}

// Remove forgets a deleted one.
func (z *RBAC) Remove(obj api.Object) {
	z.mu.Lock()
	defer z.mu.Unlock()
	key := roleKey{obj.GetNamespace(), obj.GetName()}
	switch obj.(type) {
	case *rbacv1.Role, *rbacv1.ClusterRole:
		delete(z.roles, key)
	case *rbacv1.RoleBinding, *rbacv1.ClusterRoleBinding:
		z.unbind(key)
	}
}

func (z *RBAC) bind(key roleKey, r rbacv1.RoleRef, subjects []rbacv1.Subject) {
	z.unbind(key)
	b := &binding{role: roleKey{name: r.Name}}
	if r.Kind == "Role" {
		b.role.namespace = key.namespace
	}
	z.bindings[key] = b
	for i := range subjects {
		s, ok := subjectOf(&subjects[i], key.namespace)
		if !ok || slices.Contains(b.subjects, s) {
			continue
		}
		b.subjects = append(b.subjects, s)
		g := z.grants[s]
		if g == nil {
			g = &grants{in: map[string][]grant{}}
			z.grants[s] = g
		}
		to := subjects[i].Name
		if subjects[i].Kind == rbacv1.ServiceAccountKind {
			to += "/" + subjects[i].Namespace
		}
		new := grant{key, b.role, fmt.Sprintf("RBAC: allowed by %sBinding %q of %s %q to %s %q",
			key.kind(), key, b.role.kind(), b.role.name, subjects[i].Kind, to)}
		if key.namespace == "" {
			g.cluster = append(g.cluster, new)
		} else {
			g.in[key.namespace] = append(g.in[key.namespace], new)
		}
	}
}

func (z *RBAC) unbind(key roleKey) {
	b := z.bindings[key]
	if b == nil {
		return
	}
	delete(z.bindings, key)
	ours := func(g grant) bool { return g.binding == key }
	for _, s := range b.subjects {
		g := z.grants[s]
		if key.namespace == "" {
			g.cluster = slices.DeleteFunc(g.cluster, ours)
		} else if left := slices.DeleteFunc(g.in[key.namespace], ours); len(left) > 0 {
			g.in[key.namespace] = left
		} else {
			delete(g.in, key.namespace)
		}
		if len(g.cluster) == 0 && len(g.in) == 0 {
			delete(z.grants, s)
		}
	}
}

// subjectOf reads a subject of a binding in namespace ("" for the cluster's), whose service accounts are its own unless it says
// otherwise.
func subjectOf(s *rbacv1.Subject, namespace string) (subject, bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return subject{name: s.Name}, true
	case rbacv1.GroupKind:
		return subject{group: true, name: s.Name}, true
	case rbacv1.ServiceAccountKind:
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		return subject{name: serviceaccount.MakeUsername(namespace, s.Name)}, namespace != ""
	}
	return subject{}, false
}

// visit calls f with each grant of who that counts in namespace, until f returns false. rules is nil where the role does
// not exist. The lock is held.
func (z *RBAC) visit(who user.Info, namespace string, f func(g *grant, rules *ruleSet) bool) {
	one := func(list []grant) bool {
		for i := range list {
			if !f(&list[i], z.roles[list[i].role]) {
				return false
			}
		}
		return true
	}
	both := func(s subject) bool {
		g := z.grants[s]
		return g == nil || one(g.cluster) && (namespace == "" || one(g.in[namespace]))
	}
	if !both(subject{name: who.GetName()}) {
		return
	}
	for _, name := range who.GetGroups() {
		if !both(subject{group: true, name: name}) {
			return
		}
	}
}

// Authorize implements Authorizer.
func (z *RBAC) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	if a.User == nil {
		return NoOpinion, "", nil
	}
	z.mu.RLock()
	defer z.mu.RUnlock()
	var by *grant
	var missing []string
	z.visit(a.User, a.Namespace, func(g *grant, rules *ruleSet) bool {
		switch {
		case rules == nil:
			missing = append(missing, notFound(g.role))
		case rules.allow(a):
			by = g
		}
		return by == nil
	})
	switch {
	case by != nil:
		return Allow, by.reason, nil
	case len(missing) > 1:
		return NoOpinion, "RBAC: [" + strings.Join(missing, ", ") + "]", nil
	case len(missing) == 1:
		return NoOpinion, "RBAC: " + missing[0], nil
	}
	return NoOpinion, "", nil
}

func notFound(k roleKey) string {
	return fmt.Sprintf("%s.rbac.authorization.k8s.io %q not found", strings.ToLower(k.kind()), k.name)
}

// rulesOf collects the rules of who in namespace, and the roles that are missing.
func (z *RBAC) rulesOf(who user.Info, namespace string) (rules []rbacv1.PolicyRule, missing []string) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	seen := map[roleKey]bool{}
	z.visit(who, namespace, func(g *grant, set *ruleSet) bool {
		switch {
		case seen[g.role]:
		case set == nil:
			missing = append(missing, notFound(g.role))
		default:
			rules = append(rules, set.rules...)
		}
		seen[g.role] = true
		return true
	})
	return rules, missing
}

// RulesFor implements RuleResolver.
func (z *RBAC) RulesFor(who user.Info, namespace string) (out Rules, incomplete bool, err error) {
	rules, missing := z.rulesOf(who, namespace)
	for _, r := range rules {
		if len(r.Resources) > 0 {
			out.Resource = append(out.Resource, authorizationv1.ResourceRule{
				Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
		}
		if len(r.NonResourceURLs) > 0 {
			out.NonResource = append(out.NonResource, authorizationv1.NonResourceRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	if len(missing) > 0 {
		err = fmt.Errorf("%s", strings.Join(missing, ", "))
	}
	return out, len(missing) > 0, err
}
