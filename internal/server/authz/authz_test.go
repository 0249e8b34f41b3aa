package authz

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
)

func jane(groups ...string) user.Info {
	return &user.DefaultInfo{Name: "jane", Groups: append(groups, "system:authenticated")}
}

// The words are Kubernetes' own: scripts and tests look for them.
func TestForbiddenWords(t *testing.T) {
	tests := []struct {
		a      Attributes
		reason string
		want   string
	}{
		{Attributes{Verb: "list", IsResource: true, Resource: "pods", Namespace: "shop"}, "",
			`pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "shop"`},
		{Attributes{Verb: "get", IsResource: true, Resource: "pods", Subresource: "log", Namespace: "shop", Name: "a"}, "",
			`pods "a" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "shop"`},
		{Attributes{Verb: "create", IsResource: true, Group: "apps", Resource: "deployments", Namespace: "shop"}, "RBAC: clusterrole.rbac.authorization.k8s.io \"x\" not found",
			`deployments.apps is forbidden: User "jane" cannot create resource "deployments" in API group "apps" in the namespace "shop": RBAC: clusterrole.rbac.authorization.k8s.io "x" not found`},
		{Attributes{Verb: "delete", IsResource: true, Resource: "nodes", Name: "n1"}, "",
			`nodes "n1" is forbidden: User "jane" cannot delete resource "nodes" in API group "" at the cluster scope`},
		{Attributes{Verb: "get", Path: "/metrics"}, "", `forbidden: User "jane" cannot get path "/metrics"`},
	}
	for _, tc := range tests {
		tc.a.User = jane()
		err := Forbidden(&tc.a, tc.reason)
		if err.Error() != tc.want || !apierrors.IsForbidden(err) {
			t.Errorf("got  %s\nwant %s", err, tc.want)
		}
	}
}

type fixed struct {
	d      Decision
	reason string
}

func (f fixed) Authorize(context.Context, *Attributes) (Decision, string, error) {
	return f.d, f.reason, nil
}

func TestUnion(t *testing.T) {
	tests := []struct {
		name string
		u    Union
		want Decision
		why  string
	}{
		{"nobody", Union{}, NoOpinion, ""},
		{"one allows", Union{fixed{NoOpinion, "a"}, fixed{Allow, "b"}, fixed{Deny, "c"}}, Allow, "b"},
		{"one denies first", Union{fixed{Deny, "c"}, fixed{Allow, "b"}}, Deny, "c"},
		{"none knows", Union{fixed{NoOpinion, "a"}, fixed{NoOpinion, ""}, fixed{NoOpinion, "b"}}, NoOpinion, "a\nb"},
	}
	for _, tc := range tests {
		if d, why, _ := tc.u.Authorize(t.Context(), &Attributes{}); d != tc.want || why != tc.why {
			t.Errorf("%s: %v %q", tc.name, d, why)
		}
	}
	if Check(t.Context(), Union{fixed{Deny, "no"}}, &Attributes{User: jane()}) == nil || Check(t.Context(), Union{}, &Attributes{User: jane()}) == nil {
		t.Error("Check lets pass what nobody allowed")
	}
}

func TestMasters(t *testing.T) {
	if d, _, _ := (Masters{}).Authorize(t.Context(), &Attributes{User: jane("system:masters")}); d != Allow {
		t.Error("refused a master")
	}
	if d, _, _ := (Masters{}).Authorize(t.Context(), &Attributes{User: jane("masters")}); d != NoOpinion {
		t.Error("allowed someone else")
	}
}

// allowing allows what is listed as VERB GROUP/RESOURCE[/SUB] NAMESPACE/NAME.
type allowing []string

func (l allowing) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	r := a.Resource
	if a.Subresource != "" {
		r += "/" + a.Subresource
	}
	if slices.Contains(l, a.Verb+" "+a.Group+"/"+r+" "+a.Namespace+"/"+a.Name) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}

func TestImpersonate(t *testing.T) {
	header := func(kv ...string) http.Header {
		h := http.Header{"Accept": {"application/json"}}
		for i := 0; i < len(kv); i += 2 {
			h.Add(kv[i], kv[i+1])
		}
		return h
	}
	tests := []struct {
		name   string
		h      http.Header
		allow  allowing
		want   string // the user, or what the error says
		groups []string
		extra  map[string][]string
	}{
		{"nothing asked", header(), nil, "jane", []string{"system:authenticated"}, nil},
		{"not allowed", header("Impersonate-User", "bob"), nil,
			`pods is forbidden: User "jane" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "shop"`, nil, nil},
		{"a user", header("Impersonate-User", "bob"), allowing{"impersonate /users /bob"}, "bob", []string{"system:authenticated"}, nil},
		{"the group is not allowed", header("Impersonate-User", "bob", "Impersonate-Group", "ops"), allowing{"impersonate /users /bob"},
			`cannot impersonate-on:user-info:list resource "pods"`, nil, nil},
		{"groups", header("Impersonate-User", "bob", "Impersonate-Group", "ops", "Impersonate-Group", "dev"),
			allowing{"impersonate /users /bob", "impersonate /groups /ops", "impersonate /groups /dev"}, "bob", []string{"ops", "dev", "system:authenticated"}, nil},
		{"an account", header("Impersonate-User", "system:serviceaccount:shop:till"), allowing{"impersonate /serviceaccounts shop/till"},
			"system:serviceaccount:shop:till", []string{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}, nil},
		{"nobody", header("Impersonate-User", "system:anonymous"), allowing{"impersonate /users /system:anonymous"}, "system:anonymous",
			[]string{"system:unauthenticated"}, nil},
		{"extra", header("Impersonate-User", "bob", "Impersonate-Extra-Example.com%2fScope", "read"),
			allowing{"impersonate /users /bob", "impersonate authentication.k8s.io/userextras/example.com/scope /read"}, "bob",
			[]string{"system:authenticated"}, map[string][]string{"example.com/scope": {"read"}}},
		{"extra is not allowed", header("Impersonate-User", "bob", "Impersonate-Extra-Scope", "write"), allowing{"impersonate /users /bob"},
			`cannot impersonate-on:user-info:list resource "pods"`, nil, nil},
		{"UID is not allowed", header("Impersonate-User", "bob", "Impersonate-Uid", "7"), allowing{"impersonate /users /bob"},
			`cannot impersonate-on:user-info:list resource "pods"`, nil, nil},
		{"an account's group is not allowed", header("Impersonate-User", "system:serviceaccount:shop:till", "Impersonate-Group", "ops"),
			allowing{"impersonate /serviceaccounts shop/till"}, `groups "ops" is forbidden: User "jane" cannot impersonate resource "groups"`, nil, nil},
		{"a group of nobody", header("Impersonate-Group", "system:masters"), nil, "cannot be impersonated without a user", nil, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Impersonate(t.Context(), tc.allow, tc.h, &Attributes{User: jane(), Verb: "list", IsResource: true, Version: "v1", Resource: "pods", Namespace: "shop"})
			if tc.groups == nil {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("user %v, error %v", got, err)
				}
				return
			}
			if err != nil || got.GetName() != tc.want || !slices.Equal(got.GetGroups(), tc.groups) {
				t.Fatalf("user %+v, error %v", got, err)
			}
			for k, v := range tc.extra {
				if !slices.Equal(got.GetExtra()[k], v) {
					t.Errorf("extra %v", got.GetExtra())
				}
			}
			if len(tc.h) != 1 {
				t.Errorf("headers left: %v", tc.h)
			}
		})
	}
}
