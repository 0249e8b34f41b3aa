package plugins

import (
	"context"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// RBACEscalation lets users write roles only with rules that they hold themselves, and bind only roles whose rules they hold,
// unless they have the verb escalate on the role, or bind on the role that is bound
// (https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping).
type RBACEscalation struct {
	Reader     admission.Reader
	RBAC       *authz.RBAC
	Authorizer authz.Authorizer
}

// Name implements admission.Plugin.
func (RBACEscalation) Name() string { return "RBACEscalation" }

// Admit implements admission.Plugin.
func (RBACEscalation) Admit(context.Context, *admission.Attributes) error { return nil }

// Validate implements admission.Plugin.
func (p RBACEscalation) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Resource.Group != rbacv1.GroupName || a.Operation != admission.Create && a.Operation != admission.Update ||
		a.User == nil || slices.Contains(a.User.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	if a.Operation == admission.Update && onlyForCollector(a.Object, a.Old) {
		return nil
	}
	switch o := a.Object.(type) {
	case *rbacv1.Role:
		return p.write(ctx, a, "roles", o.Rules, false)
	case *rbacv1.ClusterRole:
		old, _ := a.Old.(*rbacv1.ClusterRole)
		return p.write(ctx, a, "clusterroles", o.Rules, aggregates(o) || aggregates(old))
	case *rbacv1.RoleBinding:
		return p.bind(ctx, a, o.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return p.bind(ctx, a, o.RoleRef)
	}
	return nil
}

func aggregates(r *rbacv1.ClusterRole) bool {
	return r != nil && r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

// onlyForCollector tells whether nothing changes but what the garbage collector needs to delete the object.
func onlyForCollector(obj, old api.Object) bool {
	same := obj.DeepCopyObject().(api.Object)
	same.SetOwnerReferences(old.GetOwnerReferences())
	same.SetFinalizers(old.GetFinalizers())
	same.SetManagedFields(old.GetManagedFields())
	same.SetResourceVersion(old.GetResourceVersion())
	return equality.Semantic.DeepEqual(same, old)
}

func (p RBACEscalation) write(ctx context.Context, a *admission.Attributes, resource string, rules []rbacv1.PolicyRule, everything bool) error {
	if p.may(ctx, a, "escalate", resource, a.Key.Name) {
		return nil
	}
	if err := p.RBAC.Covers(a.User, a.Key.Namespace, rules); err != nil {
		return forbidden(a, "%w", err)
	}
	// An aggregation rule can gather anything, now or later.
	all := []string{"*"}
	if everything && p.RBAC.Covers(a.User, "", []rbacv1.PolicyRule{
		{Verbs: all, APIGroups: all, Resources: all}, {Verbs: all, NonResourceURLs: all}}) != nil {
		return forbidden(a, "must have cluster-admin privileges to use the aggregationRule")
	}
	return nil
}

func (p RBACEscalation) bind(ctx context.Context, a *admission.Attributes, ref rbacv1.RoleRef) error {
	res, key := api.ClusterRoles, api.Key{Name: ref.Name}
	if ref.Kind == "Role" {
		res, key.Namespace = api.Roles, a.Key.Namespace
	}
	if p.may(ctx, a, "bind", res.Plural, ref.Name) {
		return nil
	}
	var rules []rbacv1.PolicyRule
	obj, ok := p.Reader.Get(res, key)
	if !ok {
		return apierrors.NewNotFound(res.GroupResource(), ref.Name)
	}
	switch r := obj.(type) {
	case *rbacv1.Role:
		rules = r.Rules
	case *rbacv1.ClusterRole:
		rules = r.Rules
	}
	if err := p.RBAC.Covers(a.User, a.Key.Namespace, rules); err != nil {
		return forbidden(a, "%w", err)
	}
	return nil
}

// may tells whether the user has a verb on a role.
func (p RBACEscalation) may(ctx context.Context, a *admission.Attributes, verb, resource, name string) bool {
	d, _, err := p.Authorizer.Authorize(ctx, &authz.Attributes{
		User: a.User, Verb: verb, IsResource: true, Group: rbacv1.GroupName, Version: "v1", Resource: resource, Namespace: a.Key.Namespace, Name: name,
	})
	return err == nil && d == authz.Allow
}
