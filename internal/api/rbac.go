package api

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/rbac"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
)

// Roles are rbac.authorization.k8s.io/v1 roles.
var Roles = declare(kind[rbacv1.Role, rbac.Role, rbacv1.RoleList]{
	Resource: Resource{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind("Role"),
		Plural:           "roles", Singular: "role",
		Namespaced: true, Prefix: "roles", CreateOnUpdate: true,
	},
	validate: rbacvalidation.ValidateRole,
	validateUpdate: func(r, old *rbac.Role, _ string) field.ErrorList {
		return rbacvalidation.ValidateRoleUpdate(r, old)
	},
})

// RoleBindings are rbac.authorization.k8s.io/v1 role bindings.
var RoleBindings = declare(kind[rbacv1.RoleBinding, rbac.RoleBinding, rbacv1.RoleBindingList]{
	Resource: Resource{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind("RoleBinding"),
		Plural:           "rolebindings", Singular: "rolebinding",
		Namespaced: true, Prefix: "rolebindings", CreateOnUpdate: true,
	},
	validate: rbacvalidation.ValidateRoleBinding,
	validateUpdate: func(b, old *rbac.RoleBinding, _ string) field.ErrorList {
		return rbacvalidation.ValidateRoleBindingUpdate(b, old)
	},
})

// ClusterRoles are rbac.authorization.k8s.io/v1 cluster roles.
var ClusterRoles = declare(kind[rbacv1.ClusterRole, rbac.ClusterRole, rbacv1.ClusterRoleList]{
	Resource: Resource{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind("ClusterRole"),
		Plural:           "clusterroles", Singular: "clusterrole",
		Prefix: "clusterroles", CreateOnUpdate: true,
	},
	validate: func(r *rbac.ClusterRole) field.ErrorList {
		return rbacvalidation.ValidateClusterRole(r, rbacvalidation.ClusterRoleValidationOptions{})
	},
	validateUpdate: func(r, old *rbac.ClusterRole, _ string) field.ErrorList {
		return rbacvalidation.ValidateClusterRoleUpdate(r, old, rbacvalidation.ClusterRoleValidationOptions{
			AllowInvalidLabelValueInSelector: badAggregation(old),
		})
	},
})

// badAggregation tells that a stored role aggregates by selectors that are refused today; an update may keep them.
func badAggregation(r *rbac.ClusterRole) bool {
	if r.AggregationRule == nil {
		return false
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		if badSelector(&r.AggregationRule.ClusterRoleSelectors[i]) {
			return true
		}
	}
	return false
}

// ClusterRoleBindings are rbac.authorization.k8s.io/v1 cluster role bindings.
var ClusterRoleBindings = declare(kind[rbacv1.ClusterRoleBinding, rbac.ClusterRoleBinding, rbacv1.ClusterRoleBindingList]{
	Resource: Resource{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding"),
		Plural:           "clusterrolebindings", Singular: "clusterrolebinding",
		Prefix: "clusterrolebindings", CreateOnUpdate: true,
	},
	validate: rbacvalidation.ValidateClusterRoleBinding,
	validateUpdate: func(b, old *rbac.ClusterRoleBinding, _ string) field.ErrorList {
		return rbacvalidation.ValidateClusterRoleBindingUpdate(b, old)
	},
})
