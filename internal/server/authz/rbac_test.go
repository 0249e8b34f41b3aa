package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"pgregory.net/rapid"

	"github.com/knarr-io/knarr/internal/api"
)

func rule(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), APIGroups: strings.Split(groups, ","), Resources: strings.Split(resources, ","), ResourceNames: names}
}

func role(namespace, name string, rules ...rbacv1.PolicyRule) api.Object {
	m := metav1.ObjectMeta{Namespace: namespace, Name: name}
	if namespace == "" {
		return &rbacv1.ClusterRole{ObjectMeta: m, Rules: rules}
	}
	return &rbacv1.Role{ObjectMeta: m, Rules: rules}
}

// bindTo binds the subjects (User:x, Group:x, ServiceAccount:ns/x) to kind/name.
func bindTo(namespace, name, kind, roleName string, subjects ...string) api.Object {
	var list []rbacv1.Subject
	for _, s := range subjects {
		k, n, _ := strings.Cut(s, ":")
		sub := rbacv1.Subject{Kind: k, Name: n}
		if ns, account, ok := strings.Cut(n, "/"); ok {
			sub.Namespace, sub.Name = ns, account
		}
		list = append(list, sub)
	}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: roleName}
	m := metav1.ObjectMeta{Namespace: namespace, Name: name}
	if namespace == "" {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: m, RoleRef: ref, Subjects: list}
	}
	return &rbacv1.RoleBinding{ObjectMeta: m, RoleRef: ref, Subjects: list}
}

func index(objs ...api.Object) *RBAC {
	z := NewRBAC()
	for _, o := range objs {
		z.Set(o)
	}
	return z
}

// ask is a request in short: VERB GROUP/RESOURCE[/SUB] NAMESPACE/NAME, or VERB PATH.
func ask(who user.Info, s string) *Attributes {
	f := strings.Fields(s)
	a := &Attributes{User: who, Verb: f[0]}
	if len(f) == 2 {
		a.Path = f[1]
		return a
	}
	a.IsResource = true
	parts := strings.SplitN(f[1], "/", 3)
	a.Group, a.Resource = parts[0], parts[1]
	if len(parts) == 3 {
		a.Subresource = parts[2]
	}
	a.Namespace, a.Name, _ = strings.Cut(f[2], "/")
	return a
}

func TestRBAC(t *testing.T) {
	z := index(
		role("", "reader", rule("get,list", "", "pods,pods/log"), rule("get", "apps,batch", "*")),
		role("", "one", rule("get,update", "", "configmaps", "settings")),
		role("", "scaler", rule("update", "*", "*/scale")),
		role("", "root", rule("*", "*", "*")),
		role("", "web", rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics", "/debug/*"}}),
		role("shop", "secrets", rule("get", "", "secrets")),
		bindTo("", "1", "ClusterRole", "reader", "Group:readers"),
		bindTo("shop", "2", "ClusterRole", "reader", "User:jane", "ServiceAccount:shop/till"),
		bindTo("shop", "3", "Role", "secrets", "ServiceAccount:till"), // its own namespace
		bindTo("shop", "4", "ClusterRole", "one", "User:jane"),
		bindTo("", "5", "ClusterRole", "scaler", "User:hpa"),
		bindTo("", "6", "ClusterRole", "root", "User:root"),
		bindTo("", "7", "ClusterRole", "web", "User:prom"),
		bindTo("shop", "8", "ClusterRole", "web", "User:jane"),
		bindTo("bank", "9", "Role", "secrets", "User:jane"),
		bindTo("bank", "10", "ClusterRole", "gone", "User:jane"),
	)
	u := func(name string, groups ...string) user.Info { return &user.DefaultInfo{Name: name, Groups: groups} }
	till := "system:serviceaccount:shop:till"
	tests := []struct {
		who  user.Info
		ask  string
		want bool
	}{
		{u("bob", "readers"), "get /pods shop/a", true},
		{u("bob", "readers"), "list /pods /", true},
		{u("bob", "readers"), "get /pods/log shop/a", true},
		{u("bob", "readers"), "get /pods/exec shop/a", false},
		{u("bob", "readers"), "delete /pods shop/a", false},
		{u("bob", "readers"), "get apps/deployments shop/a", true},
		{u("bob", "readers"), "get apps/deployments/scale shop/a", true}, // * covers subresources
		{u("bob", "readers"), "get policy/x shop/a", false},
		{u("bob"), "get /pods shop/a", false},
		{u("readers"), "get /pods shop/a", false}, // a user of a group's name
		{u("jane"), "get /pods shop/a", true},
		{u("jane"), "get /pods bank/a", false},
		{u("jane"), "list /pods /", false}, // a namespace's binding does not reach the cluster
		{u(till), "get /pods shop/a", true},
		{u(till), "get /secrets shop/a", true},
		{u(till), "get /secrets bank/a", false},
		{u("till"), "get /secrets shop/a", false},
		{u("jane"), "get /configmaps shop/settings", true},
		{u("jane"), "get /configmaps shop/other", false},
		{u("jane"), "create /configmaps shop/", false},
		{u("hpa"), "update apps/deployments/scale shop/a", true},
		{u("hpa"), "update apps/deployments shop/a", false},
		{u("hpa"), "update apps/deployments/status shop/a", false},
		{u("root"), "impersonate /users /x", true},
		{u("root"), "get /metrics", false},
		{u("prom"), "get /metrics", true},
		{u("prom"), "get /metrics/x", false},
		{u("prom"), "get /debug/pprof/heap", true},
		{u("prom"), "get /debug", false},
		{u("prom"), "post /metrics", false},
		{u("jane"), "get /metrics", false}, // a namespace's binding does not reach paths
		{u("jane"), "get /secrets bank/a", false},
	}
	for _, tc := range tests {
		d, why, err := z.Authorize(t.Context(), ask(tc.who, tc.ask))
		if (d == Allow) != tc.want || d == Deny || err != nil {
			t.Errorf("%s: %s: %v %q %v", tc.who.GetName(), tc.ask, d, why, err)
		}
	}
	for s, want := range map[string]string{
		"get /pods shop/a":    `RBAC: allowed by RoleBinding "2/shop" of ClusterRole "reader" to User "jane"`,
		"get /secrets bank/a": `RBAC: [role.rbac.authorization.k8s.io "secrets" not found, clusterrole.rbac.authorization.k8s.io "gone" not found]`,
	} {
		if _, why, _ := z.Authorize(t.Context(), ask(u("jane"), s)); why != want {
			t.Errorf("%s: %s", s, why)
		}
	}
}

func TestRulesFor(t *testing.T) {
	z := index(
		role("", "reader", rule("get", "", "pods"), rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}),
		role("shop", "writer", rule("update", "", "pods", "a")),
		bindTo("", "1", "ClusterRole", "reader", "User:jane", "Group:system:authenticated"), // twice the same role
		bindTo("shop", "2", "Role", "writer", "User:jane"),
		bindTo("bank", "3", "Role", "gone", "User:jane"),
	)
	rules, incomplete, err := Union{Masters{}, z}.RulesFor(jane(), "shop")
	if err != nil || incomplete || len(rules.Resource) != 2 || len(rules.NonResource) != 1 || rules.Resource[1].ResourceNames[0] != "a" {
		t.Errorf("%+v %v %v", rules, incomplete, err)
	}
	if _, incomplete, err = z.RulesFor(jane(), "bank"); !incomplete || err == nil {
		t.Error("does not say that a role is missing")
	}
}

// However the objects came to be as they are, the index answers as an evaluation of all of them from scratch does.
func TestIndexEqualsEvaluation(t *testing.T) {
	namespaces := []string{"", "a", "b"}
	names := []string{"x", "y"}
	subjects := []string{"User:jane", "Group:g", "ServiceAccount:a/s", "User:bob"}
	users := []user.Info{jane(), jane("g"), &user.DefaultInfo{Name: "system:serviceaccount:a:s", Groups: []string{"g"}}, &user.DefaultInfo{Name: "bob"}}
	rapid.Check(t, func(t *rapid.T) {
		z := NewRBAC()
		objs := map[string]api.Object{}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			ns, name := rapid.SampledFrom(namespaces).Draw(t, "namespace"), rapid.SampledFrom(names).Draw(t, "name")
			var o api.Object
			if rapid.Bool().Draw(t, "role") {
				o = role(ns, name, rule(rapid.SampledFrom([]string{"get", "list", "*"}).Draw(t, "verb"), "", rapid.SampledFrom([]string{"pods", "*", "*/log", "secrets"}).Draw(t, "resource")))
			} else {
				kind := "ClusterRole"
				if ns != "" && rapid.Bool().Draw(t, "own") {
					kind = "Role"
				}
				o = bindTo(ns, name, kind, rapid.SampledFrom(names).Draw(t, "ref"), rapid.SliceOf(rapid.SampledFrom(subjects)).Draw(t, "subjects")...)
			}
			key := fmt.Sprintf("%T %s", o, api.KeyOf(o))
			if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
				z.Remove(o)
				delete(objs, key)
			} else {
				z.Set(o)
				objs[key] = o
			}
		}
		for _, who := range users {
			for _, s := range []string{"get /pods a/p", "list /secrets b/", "get /pods/log a/p", "list /pods /", "delete /pods b/p"} {
				a := ask(who, s)
				d, _, _ := z.Authorize(context.Background(), a)
				if want := evaluate(objs, a); (d == Allow) != want {
					t.Fatalf("%s: %s: %v, from scratch %v", who.GetName(), s, d, want)
				}
			}
		}
		for _, o := range objs {
			z.Remove(o)
		}
		if len(z.grants) != 0 || len(z.bindings) != 0 || len(z.roles) != 0 {
			t.Fatalf("something is left: %+v", z)
		}
	})
}

// evaluate decides as RBAC is defined: some binding that counts names the user, and its role has a rule that matches.
func evaluate(objs map[string]api.Object, a *Attributes) bool {
	for _, o := range objs {
		var ref rbacv1.RoleRef
		var subjects []rbacv1.Subject
		switch b := o.(type) {
		case *rbacv1.RoleBinding:
			if b.Namespace != a.Namespace {
				continue
			}
			ref, subjects = b.RoleRef, b.Subjects
		case *rbacv1.ClusterRoleBinding:
			ref, subjects = b.RoleRef, b.Subjects
		default:
			continue
		}
		named := slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool {
			switch s.Kind {
			case "User":
				return s.Name == a.User.GetName()
			case "Group":
				return slices.Contains(a.User.GetGroups(), s.Name)
			}
			return a.User.GetName() == "system:serviceaccount:"+s.Namespace+":"+s.Name
		})
		for _, r := range objs {
			var rules []rbacv1.PolicyRule
			switch x := r.(type) {
			case *rbacv1.Role:
				if ref.Kind == "Role" && x.Name == ref.Name && x.Namespace == o.GetNamespace() {
					rules = x.Rules
				}
			case *rbacv1.ClusterRole:
				if ref.Kind == "ClusterRole" && x.Name == ref.Name {
					rules = x.Rules
				}
			}
			for i := range rules {
				if named && matchesVerb(&rules[i], a.Verb) && matchesGroup(&rules[i], a.Group) && matchesResource(&rules[i], a.Resource, a.Subresource) {
					return true
				}
			}
		}
	}
	return false
}

func TestCovers(t *testing.T) {
	z := index(
		role("", "held", rule("get,list", "", "pods,pods/log"), rule("update", "", "configmaps", "a", "b"), rule("*", "apps", "*"), rule("patch", "*", "*/scale"),
			rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/debug/*"}}),
		role("", "more", rule("delete", "", "pods")),
		bindTo("", "1", "ClusterRole", "held", "User:jane"),
		bindTo("shop", "2", "ClusterRole", "more", "User:jane"),
	)
	tests := []struct {
		namespace string
		rule      rbacv1.PolicyRule
		missing   string
	}{
		{"", rule("get", "", "pods"), ""},
		{"", rule("get,list", "", "pods/log,pods"), ""},
		{"", rule("get,watch", "", "pods"), `{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}`},
		{"", rule("get", "", "pods", "one"), ""},
		{"", rule("update", "", "configmaps", "a"), ""},
		{"", rule("update", "", "configmaps", "a", "c"), `{APIGroups:[""], Resources:["configmaps"], ResourceNames:["c"], Verbs:["update"]}`},
		{"", rule("update", "", "configmaps"), `{APIGroups:[""], Resources:["configmaps"], Verbs:["update"]}`},
		{"", rule("*", "apps", "deployments/scale"), ""},
		{"", rule("*", "*", "*"), `{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`},
		{"", rule("patch", "batch", "jobs/scale"), ""},
		{"", rule("patch", "batch", "*/scale"), ""},
		{"", rule("patch,get,list", "batch", "jobs"), `{APIGroups:["batch"], Resources:["jobs"], Verbs:["patch","get","list"]}`},
		{"", rule("get", "", "*"), `{APIGroups:[""], Resources:["*"], Verbs:["get"]}`},
		{"", rule("delete", "", "pods"), `{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}`},
		{"shop", rule("delete", "", "pods"), ""},
		{"", rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/debug/pprof/*"}}, ""},
		{"", rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}}, `{NonResourceURLs:["/metrics"], Verbs:["get"]}`},
	}
	for _, tc := range tests {
		err := z.Covers(jane(), tc.namespace, []rbacv1.PolicyRule{tc.rule})
		switch {
		case tc.missing == "" && err != nil:
			t.Error(err)
		case tc.missing != "" && (err == nil || !strings.HasSuffix(err.Error(), ":\n"+tc.missing)):
			t.Errorf("%v: error %v, want %s", tc.rule, err, tc.missing)
		}
	}
}

func BenchmarkAuthorize(b *testing.B) {
	z := NewRBAC()
	for i := range 500 {
		ns := fmt.Sprintf("ns-%d", i)
		z.Set(role(ns, "r", rule("get,list,watch", "", "pods,secrets"), rule("get", "apps", "deployments")))
		z.Set(bindTo(ns, "b", "Role", "r", "User:jane", fmt.Sprintf("User:user-%d", i)))
	}
	for i := range 200 {
		z.Set(role("", fmt.Sprint(i), rule("get", "g.example", fmt.Sprintf("r%d", i)), rule("update", "apps", "deployments/scale")))
		z.Set(bindTo("", fmt.Sprint(i), "ClusterRole", fmt.Sprint(i), "User:many"))
	}
	policy, err := Policy()
	if err != nil {
		b.Fatal(err)
	}
	for _, o := range policy {
		z.Set(o)
	}
	all := Union{Masters{}, z}
	for _, bc := range []struct {
		name string
		a    *Attributes
		want Decision
	}{
		{"master", ask(jane("system:masters"), "get /pods ns-1/a"), Allow},
		{"500 namespaces", ask(jane(), "get /pods ns-444/a"), Allow},
		{"refused", ask(jane(), "delete /pods ns-444/a"), NoOpinion},
		{"200 cluster roles refused", ask(&user.DefaultInfo{Name: "many", Groups: []string{"system:authenticated"}}, "get /pods ns-1/a"), NoOpinion},
		{"discovery", ask(jane(), "get /apis/apps/v1"), Allow},
	} {
		b.Run(bc.name, func(b *testing.B) {
			for b.Loop() {
				if d, _, _ := all.Authorize(context.Background(), bc.a); d != bc.want {
					b.Fatal(d)
				}
			}
		})
	}
}
