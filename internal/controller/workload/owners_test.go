package workload

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

func newOwners() *Owners {
	return NewOwners(kind.GroupKind(), func(o api.Object) *metav1.LabelSelector { return o.(*appsv1.ReplicaSet).Spec.Selector })
}

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

// owner is a ReplicaSet whose selector is written as LABEL=VALUE,..., or as LABEL for one that asks for any value.
func owner(namespace, name, selector string) *appsv1.ReplicaSet {
	sel := &metav1.LabelSelector{}
	for _, term := range strings.FieldsFunc(selector, func(r rune) bool { return r == ',' }) {
		if key, value, ok := strings.Cut(term, "="); ok {
			metav1.AddLabelToSelector(sel, key, value)
		} else {
			sel.MatchExpressions = append(sel.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpExists})
		}
	}
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name)}, Spec: appsv1.ReplicaSetSpec{Selector: sel}}
}

func orphan(namespace string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p", Labels: labels}}
}

// names shows the owners in whose queue the event puts a key.
func names(o *Owners, e client.Event) string {
	var out []string
	for _, k := range o.OwnedKeys(e) {
		out = append(out, k.Name)
	}
	return strings.Join(out, " ")
}

func TestOrphansFindTheirOwners(t *testing.T) {
	o := newOwners()
	for _, rs := range []*appsv1.ReplicaSet{
		owner("a", "web", "app=web"), owner("a", "web-v1", "app=web,hash=1"), owner("a", "web-v2", "app=web,hash=2"),
		owner("a", "any", "app"), owner("a", "nothing", ""), owner("b", "elsewhere", "app=web"),
	} {
		if keys := o.OwnerKeys(client.Event{Type: client.Added, Object: rs}); fmt.Sprint(keys) != "["+rs.Namespace+"/"+rs.Name+"]" {
			t.Errorf("the event of %s gives %v, want its own key", rs.Name, keys)
		}
	}
	for _, tc := range []struct {
		labels map[string]string
		want   string
	}{
		{map[string]string{"app": "web", "hash": "2"}, "any web web-v2"},
		{map[string]string{"app": "web"}, "any web"},
		{map[string]string{"app": "db"}, "any"},
		{map[string]string{"hash": "1"}, ""},
		{nil, ""},
	} {
		if got := names(o, client.Event{Type: client.Added, Object: orphan("a", tc.labels)}); got != tc.want {
			t.Errorf("labels %v: owners %q, want %q", tc.labels, got, tc.want)
		}
	}
	if at := o.known[api.Key{Namespace: "a", Name: "web-v2"}].at; at.key != "hash" {
		t.Errorf("web-v2 is held under %s, want the label that fewest others ask for", at.key)
	}

	// A selector that changes, and an owner that goes.
	o.OwnerKeys(client.Event{Type: client.Modified, Object: owner("a", "web", "app=db")})
	o.OwnerKeys(client.Event{Type: client.Deleted, Object: owner("a", "any", "app")})
	if got := names(o, client.Event{Type: client.Added, Object: orphan("a", map[string]string{"app": "db"})}); got != "web" {
		t.Errorf("owners %q, want web, which asks for db now", got)
	}
	for _, name := range []string{"web", "web-v1", "web-v2"} {
		o.OwnerKeys(client.Event{Type: client.Deleted, Object: owner("a", name, "x=y")})
	}
	o.OwnerKeys(client.Event{Type: client.Deleted, Object: owner("b", "elsewhere", "app=web")})
	if len(o.known)+len(o.byLabel) != 0 {
		t.Errorf("owners that are gone are remembered: %v %v", o.known, o.byLabel)
	}
}

func TestAPodThatChangesHandsWakesBothOwners(t *testing.T) {
	o := newOwners()
	o.OwnerKeys(client.Event{Type: client.Added, Object: owner("a", "web", "app=web")})
	controlled := func(name string) *corev1.Pod {
		p := orphan("a", map[string]string{"app": "web"})
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner("a", name, ""), kind)}
		return p
	}
	for _, tc := range []struct {
		name string
		e    client.Event
		want string
	}{
		{"from one to another", client.Event{Type: client.Modified, Old: controlled("old"), Object: controlled("new")}, "new old"},
		{"released", client.Event{Type: client.Modified, Old: controlled("old"), Object: orphan("a", map[string]string{"app": "web"})}, "web old"},
		{"deleted", client.Event{Type: client.Deleted, Object: controlled("old")}, "old"},
		{"an orphan that is deleted", client.Event{Type: client.Deleted, Object: orphan("a", map[string]string{"app": "web"})}, ""},
	} {
		if got := names(o, tc.e); got != tc.want {
			t.Errorf("%s: owners %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestOrphansAreLookedForOnce(t *testing.T) {
	o := newOwners()
	web := owner("a", "web", "app=web")
	key := api.KeyOf(web)
	o.OwnerKeys(client.Event{Type: client.Added, Object: web})
	look := func(want bool, when string) {
		t.Helper()
		if got := o.Look(key, web.UID); got != want {
			t.Errorf("%s: look %v, want %v", when, got, want)
		}
	}
	look(true, "at first")
	look(false, "again")
	o.OwnerKeys(client.Event{Type: client.Modified, Object: web})
	look(false, "after a change of anything but the selector")
	o.OwnedKeys(client.Event{Type: client.Added, Object: orphan("a", map[string]string{"app": "db"})})
	look(false, "after an orphan of somebody else")
	o.OwnedKeys(client.Event{Type: client.Added, Object: orphan("a", map[string]string{"app": "web"})})
	look(true, "after an orphan that matches")
	o.OwnerKeys(client.Event{Type: client.Modified, Object: owner("a", "web", "app=db")})
	look(true, "after a change of the selector")
	o.Again(key)
	look(true, "after an adoption failed")
	web.UID = "another"
	look(true, "for another object of that name")
}
