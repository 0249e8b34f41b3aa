package authority

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"

	"github.com/knarr-io/knarr/internal/server/authz"
)

// more are the roles and bindings that Knarr has and Kubernetes has not, or that give more here, and why. Names ending in * stand for
// all that begin so.
var more = map[string]string{
	"knarr:*":                          "what machines and servers of Knarr need of each other",
	"system:aggregated-metrics-reader": "metrics.k8s.io is built in; metrics-server brings this role elsewhere",
	"system:node-bootstrapper":         "kubeadm binds its role elsewhere: machines join with bootstrap tokens",
	"system:certificates.k8s.io:certificatesigningrequests:*": "as kubeadm binds them: the certificates of machines that join are approved",
	"system:controller:taint-eviction-controller":             "the part of the node controller's work that is a controller of its own here",
	"system:controller:event-ttl-controller":                  "events expire by a controller, not by leases of etcd",
	"system:controller:deployment-controller":                 "roll-outs with steps make Jobs and look at metrics",
	"system:volume-scheduler":                                 "local volumes are made in the transaction that binds their pod",
}

// explained returns why Knarr may have more than Kubernetes under this name.
func explained(name string) bool {
	for pattern := range more {
		prefix, open := strings.CutSuffix(pattern, "*")
		if name == pattern || open && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// holder is a role or binding, by what it is and its name.
type holder struct{ kind, namespace, name string }

// granted are single rights, or single subjects of a binding.
type granted map[string]bool

func rights(rules []rbacv1.PolicyRule, aggregation *rbacv1.AggregationRule, labels map[string]string) granted {
	out := granted{}
	for _, r := range rules {
		names := r.ResourceNames
		if len(names) == 0 {
			names = []string{"*"}
		}
		for _, verb := range r.Verbs {
			for _, url := range r.NonResourceURLs {
				out[verb+" "+url] = true
			}
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					for _, name := range names {
						out[fmt.Sprintf("%s %s/%s %s", verb, group, resource, name)] = true
					}
				}
			}
		}
	}
	if aggregation != nil {
		for _, s := range aggregation.ClusterRoleSelectors {
			out["all of "+metav1.FormatLabelSelector(&s)] = true
		}
	}
	for k, v := range labels {
		out["label "+k+"="+v] = true
	}
	return out
}

func bound(ref rbacv1.RoleRef, subjects []rbacv1.Subject) granted {
	out := granted{fmt.Sprintf("to %s %s", ref.Kind, ref.Name): true}
	for _, s := range subjects {
		out[fmt.Sprintf("%s %s/%s", s.Kind, s.Namespace, s.Name)] = true
	}
	return out
}

// add adds what a role or binding grants; they come as pointers.
func add(to map[holder]granted, obj any) {
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		to[holder{"ClusterRole", "", o.Name}] = rights(o.Rules, o.AggregationRule, o.Labels)
	case *rbacv1.Role:
		to[holder{"Role", o.Namespace, o.Name}] = rights(o.Rules, nil, o.Labels)
	case *rbacv1.ClusterRoleBinding:
		to[holder{"ClusterRoleBinding", "", o.Name}] = bound(o.RoleRef, o.Subjects)
	case *rbacv1.RoleBinding:
		to[holder{"RoleBinding", o.Namespace, o.Name}] = bound(o.RoleRef, o.Subjects)
	}
}

func addAll[T any](to map[holder]granted, objs []T) {
	for i := range objs {
		add(to, &objs[i])
	}
}

// compare fails where ours lacks something of theirs, or has something more that is not explained.
func compare(t *testing.T, ours, theirs map[holder]granted) {
	t.Helper()
	if len(theirs) == 0 {
		t.Fatal("Kubernetes has none")
	}
	for h, want := range theirs {
		have, ok := ours[h]
		if !ok {
			t.Errorf("%v is missing", h)
			continue
		}
		for _, g := range slices.Sorted(maps.Keys(want)) {
			if !have[g] {
				t.Errorf("%v lacks %q", h, g)
			}
		}
	}
	for h, have := range ours {
		for _, g := range slices.Sorted(maps.Keys(have)) {
			if theirs[h][g] {
				continue
			}
			if !explained(h.name) {
				t.Errorf("%v has %q, which Kubernetes does not give", h, g)
			}
		}
	}
}

func defaults(t *testing.T) map[holder]granted {
	t.Helper()
	policy, err := authz.Policy()
	if err != nil {
		t.Fatal(err)
	}
	out := map[holder]granted{}
	for _, obj := range policy {
		before := len(out)
		if add(out, obj); len(out) == before {
			t.Errorf("%T %s/%s is there twice", obj, obj.GetNamespace(), obj.GetName())
		}
	}
	return out
}

// only returns those whose kind ends so.
func only(all map[holder]granted, suffix string) map[holder]granted {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(h holder, _ granted) bool { return !strings.HasSuffix(h.kind, suffix) })
	return out
}

func TestDefaultRoles(t *testing.T) {
	theirs := map[holder]granted{}
	addAll(theirs, bootstrappolicy.ClusterRoles())
	addAll(theirs, bootstrappolicy.ControllerRoles())
	for _, roles := range bootstrappolicy.NamespaceRoles() {
		addAll(theirs, roles)
	}
	compare(t, only(defaults(t), "Role"), theirs)
}

func TestDefaultBindings(t *testing.T) {
	theirs := map[holder]granted{}
	addAll(theirs, bootstrappolicy.ClusterRoleBindings())
	addAll(theirs, bootstrappolicy.ControllerRoleBindings())
	for _, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		addAll(theirs, bindings)
	}
	compare(t, only(defaults(t), "Binding"), theirs)
}

// A line of the table that explains nothing is out of date.
func TestEveryExplanationIsNeeded(t *testing.T) {
	theirs := map[holder]granted{}
	addAll(theirs, bootstrappolicy.ClusterRoles())
	addAll(theirs, bootstrappolicy.ControllerRoles())
	addAll(theirs, bootstrappolicy.ClusterRoleBindings())
	addAll(theirs, bootstrappolicy.ControllerRoleBindings())
	ours := defaults(t)
	for pattern, why := range more {
		prefix, open := strings.CutSuffix(pattern, "*")
		needed := false
		for h, have := range ours {
			if h.name != pattern && (!open || !strings.HasPrefix(h.name, prefix)) {
				continue
			}
			for g := range have {
				needed = needed || !theirs[h][g]
			}
		}
		if !needed {
			t.Errorf("%s is what Kubernetes has (%s)", pattern, why)
		}
	}
}
