package authz

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

func TestConstrainedImpersonation(t *testing.T) {
	plain := jane()
	bound := &user.DefaultInfo{Name: "system:serviceaccount:shop:agent", Groups: []string{"system:serviceaccounts"},
		Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"n1"}}}
	userRight := func(more ...string) allowing {
		return append(allowing{"impersonate-on:user-info:list /pods shop/", "impersonate:user-info authentication.k8s.io/users /bob"}, more...)
	}
	const group = "impersonate:user-info authentication.k8s.io/groups /"
	tests := []struct {
		name   string
		who    user.Info
		as     []string // headers
		allow  allowing
		says   string   // "" where it is allowed
		groups []string // besides system:authenticated
	}{
		{"a user", plain, []string{"User", "bob"}, userRight(), "", nil},
		{"a user for another verb", plain, []string{"User", "bob"}, allowing{"impersonate-on:user-info:get /pods shop/", "impersonate:user-info authentication.k8s.io/users /bob"},
			`cannot impersonate-on:user-info:list resource "pods"`, nil},
		{"the verb, but not the user", plain, []string{"User", "bob"}, allowing{"impersonate-on:user-info:list /pods shop/"}, `cannot impersonate:user-info resource "users"`, nil},
		{"a group", plain, []string{"User", "bob", "Group", "ops"}, userRight(group + "ops"), "", []string{"ops"}},
		{"a group without the right", plain, []string{"User", "bob", "Group", "ops"}, userRight(), `groups.authentication.k8s.io "ops" is forbidden`, nil},
		{"many groups", plain, []string{"User", "bob", "Group", "a", "Group", "b", "Group", "c", "Group", "d"}, userRight(group + "*"), "", []string{"a", "b", "c", "d"}},
		{"few groups with the right to all", plain, []string{"User", "bob", "Group", "a"}, userRight(group + "*"), `"a" is forbidden`, nil},
		{"the administrators", plain, []string{"User", "bob", "Group", "system:masters"}, userRight(group + "system:masters"), "impersonating the system:masters group is not allowed", nil},
		{"a UID", plain, []string{"User", "bob", "Uid", "7"}, userRight("impersonate:user-info authentication.k8s.io/uids /7"), "", nil},
		{"extra", plain, []string{"User", "bob", "Extra-Example.com%2fscope", "x"}, userRight("impersonate:user-info authentication.k8s.io/userextras/example.com/scope /x"), "", nil},
		{"extra with a wrong key", plain, []string{"User", "bob", "Extra-A b", "x"}, userRight("impersonate:user-info authentication.k8s.io/userextras/a b /x"), "invalid key in extra", nil},
		{"an account", plain, []string{"User", "system:serviceaccount:a:b"}, allowing{"impersonate-on:serviceaccount:list /pods shop/",
			"impersonate:serviceaccount authentication.k8s.io/serviceaccounts a/b"}, "", []string{"system:serviceaccounts", "system:serviceaccounts:a"}},
		{"an account by the right for users", plain, []string{"User", "system:serviceaccount:a:b"}, allowing{"impersonate-on:user-info:list /pods shop/",
			"impersonate:user-info authentication.k8s.io/users /system:serviceaccount:a:b"}, "forbidden", nil},
		{"a node", plain, []string{"User", "system:node:n1"}, allowing{"impersonate-on:arbitrary-node:list /pods shop/",
			"impersonate:arbitrary-node authentication.k8s.io/nodes /n1"}, "", []string{"system:nodes"}},
		{"a node with groups", plain, []string{"User", "system:node:n1", "Group", "ops"}, allowing{"impersonate-on:arbitrary-node:list /pods shop/",
			"impersonate:arbitrary-node authentication.k8s.io/nodes /n1"}, "forbidden", nil},
		{"its own node", bound, []string{"User", "system:node:n1"}, allowing{"impersonate-on:associated-node:list /pods shop/",
			"impersonate:associated-node authentication.k8s.io/nodes /*"}, "", []string{"system:nodes"}},
		{"another node", bound, []string{"User", "system:node:n2"}, allowing{"impersonate-on:associated-node:list /pods shop/",
			"impersonate:associated-node authentication.k8s.io/nodes /*"}, "forbidden", nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h := http.Header{}
			for i := 0; i < len(tc.as); i += 2 {
				h.Add("Impersonate-"+tc.as[i], tc.as[i+1])
			}
			request := &Attributes{User: tc.who, Verb: "list", IsResource: true, Version: "v1", Resource: "pods", Namespace: "shop"}
			got, err := Impersonate(t.Context(), tc.allow, h, request)
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Fatalf("user %v, error %v", got, err)
				}
				return
			}
			if err != nil || got.GetName() != tc.as[1] || !slices.Equal(got.GetGroups(), append(tc.groups, user.AllAuthenticated)) {
				t.Fatalf("user %+v, error %v", got, err)
			}
		})
	}
}
