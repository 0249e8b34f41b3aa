package authz

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
)

func TestPolicyIsComplete(t *testing.T) {
	policy, err := Policy()
	if err != nil {
		t.Fatal(err)
	}
	z := index(policy...)
	for _, o := range policy {
		if o.GetLabels()["kubernetes.io/bootstrapping"] != "rbac-defaults" || o.GetAnnotations()[autoUpdate] != "true" {
			t.Errorf("%s is not marked as a default", o.GetName())
		}
	}
	for key, b := range z.bindings {
		if z.roles[b.role] == nil {
			t.Errorf("binding %s refers to %s %s, which is not there", key, b.role.kind(), b.role)
		}
	}
	u := func(name string, groups ...string) user.Info { return &user.DefaultInfo{Name: name, Groups: groups} }
	for _, tc := range []struct {
		who  user.Info
		ask  string
		want bool
	}{
		{u("root", "system:masters"), "delete /nodes /n", true},
		{u("root", "system:masters"), "post /anything", true},
		{jane(), "get /apis/apps/v1", true},
		{jane(), "get /openapi/v3/apis/apps/v1", true},
		{jane(), "create authorization.k8s.io/selfsubjectaccessreviews /", true},
		{jane(), "get /metrics", false},
		{jane(), "list /pods default/", false},
		{u("system:serviceaccount:a:b", "system:serviceaccounts"), "get /openid/v1/jwks", true},
		{u("x", "system:monitoring"), "get /metrics", true},
		{u("system:kube-scheduler"), "create /pods/binding shop/p", true},
		{u("system:kube-scheduler"), "get /configmaps kube-system/extension-apiserver-authentication", true},
		{u("system:kube-scheduler"), "get /configmaps kube-system/other", false},
		{u("system:kube-scheduler"), "update coordination.k8s.io/leases kube-system/mine", true},
		{u("system:kube-scheduler"), "update coordination.k8s.io/leases shop/mine", false},
		{u("system:serviceaccount:kube-system:route-controller"), "patch /nodes/status /n", true},
		{u("system:node:n", "system:nodes"), "get /secrets shop/x", false}, // only the Node authorizer gives that
	} {
		if d, why, _ := z.Authorize(t.Context(), ask(tc.who, tc.ask)); (d == Allow) != tc.want {
			t.Errorf("%s: %s: %v %s", tc.who.GetName(), tc.ask, d, why)
		}
	}
}

func TestReconciled(t *testing.T) {
	wanted := func() *rbacv1.ClusterRole {
		r := role("", "r", rule("get,list", "", "pods"), rule("get", "", "nodes")).(*rbacv1.ClusterRole)
		r.Labels, r.Annotations = map[string]string{"default": "yes"}, map[string]string{autoUpdate: "true"}
		return r
	}
	binding := func(role string, subjects ...string) *rbacv1.ClusterRoleBinding {
		return bindTo("", "b", "ClusterRole", role, subjects...).(*rbacv1.ClusterRoleBinding)
	}
	change := func(f func(*rbacv1.ClusterRole)) api.Object {
		r := wanted()
		f(r)
		return r
	}
	tests := []struct {
		name       string
		have, want api.Object
		next       api.Object // nil: nothing to do
		replace    bool
	}{
		{"the same", wanted(), wanted(), nil, false},
		{"more than wanted", change(func(r *rbacv1.ClusterRole) {
			r.Rules = []rbacv1.PolicyRule{rule("*", "", "*")}
			r.Labels["own"] = "x"
		}), wanted(), nil, false},
		{"less than wanted", change(func(r *rbacv1.ClusterRole) {
			r.Rules = []rbacv1.PolicyRule{rule("get", "", "pods"), rule("get", "", "nodes")}
		}), wanted(),
			change(func(r *rbacv1.ClusterRole) {
				r.Rules = []rbacv1.PolicyRule{rule("get", "", "pods"), rule("get", "", "nodes"), rule("get,list", "", "pods")}
			}), false},
		{"protected", change(func(r *rbacv1.ClusterRole) { r.Rules, r.Annotations = nil, map[string]string{autoUpdate: "false"} }), wanted(), nil, false},
		{"label gone", change(func(r *rbacv1.ClusterRole) { r.Labels = nil }), wanted(), wanted(), false},
		{"label changed", change(func(r *rbacv1.ClusterRole) { r.Labels["default"] = "no" }), wanted(), nil, false},
		{"subjects", binding("r", "User:a"), binding("r", "User:a", "Group:g"), binding("r", "User:a", "Group:g"), false},
		{"another role", binding("other", "User:a"), binding("r", "Group:g"), binding("r", "Group:g"), true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			before := tc.have.DeepCopyObject()
			next, replace := reconciled(tc.have, tc.want)
			if diff := cmp.Diff(tc.next, next); diff != "" && !(tc.next == nil && next == nil) || replace != tc.replace {
				t.Errorf("replace %v\n%s", replace, diff)
			}
			if !cmp.Equal(before, tc.have) {
				t.Error("the shared object was changed")
			}
		})
	}
	agg := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "a"}, AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"x": "y"}}}}}
	plain := agg.DeepCopy()
	plain.AggregationRule = nil
	if next, _ := reconciled(plain, agg); next == nil || !cmp.Equal(next.(*rbacv1.ClusterRole).AggregationRule, agg.AggregationRule) {
		t.Error("does not give the role its aggregation rule")
	}
}
