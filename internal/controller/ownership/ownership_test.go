package ownership

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

var rsKind = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}

func owner(name string) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}}
}

func pod(name, app string, by *appsv1.ReplicaSet) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"app": app}}}
	if by != nil {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(by, rsKind)}
	}
	return p
}

func names(pods []*corev1.Pod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return out
}

func TestSort(t *testing.T) {
	me, other := owner("me"), owner("other")
	deleted := metav1.Now()
	going := pod("orphan-going", "a", nil)
	going.DeletionTimestamp = &deleted
	pods := []*corev1.Pod{pod("mine", "a", me), pod("strayed", "b", me), pod("orphan", "a", nil), pod("stranger", "b", nil),
		pod("theirs", "a", other), going}
	sel := labels.SelectorFromSet(labels.Set{"app": "a"})

	leaving := owner("me")
	leaving.DeletionTimestamp = &deleted
	for _, c := range []struct {
		name                 string
		owner                *appsv1.ReplicaSet
		mine, adopt, release []string
	}{
		{"alive", me, []string{"mine"}, []string{"orphan"}, []string{"strayed"}},
		{"being deleted", leaving, []string{"mine"}, nil, nil},
	} {
		mine, adopt, release := Sort(c.owner, sel, pods)
		if !slices.Equal(names(mine), c.mine) || !slices.Equal(names(adopt), c.adopt) || !slices.Equal(names(release), c.release) {
			t.Errorf("%s: mine %v adopt %v release %v, want %v %v %v", c.name, names(mine), names(adopt), names(release), c.mine, c.adopt, c.release)
		}
	}
}

func TestEventKeys(t *testing.T) {
	key := func(name string) api.Key { return api.Key{Namespace: "ns", Name: name} }
	orphans := func(api.Object) []api.Key { return []api.Key{key("asked")} }
	foreign := pod("p", "a", nil)
	foreign.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner("job"), schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"})}
	for _, c := range []struct {
		name string
		e    client.Event
		want []api.Key
	}{
		{"controlled", client.Event{Object: pod("p", "a", owner("x"))}, []api.Key{key("x")}},
		{"changed hands", client.Event{Type: client.Modified, Object: pod("p", "a", owner("x")), Old: pod("p", "a", owner("y"))}, []api.Key{key("x"), key("y")}},
		{"orphan", client.Event{Object: pod("p", "a", nil)}, []api.Key{key("asked")}},
		{"orphaned", client.Event{Type: client.Modified, Object: pod("p", "a", nil), Old: pod("p", "a", owner("y"))}, []api.Key{key("asked"), key("y")}},
		{"deleted orphan", client.Event{Type: client.Deleted, Object: pod("p", "a", nil)}, nil},
		{"another kind's", client.Event{Object: foreign}, nil},
	} {
		if got := EventKeys(c.e, rsKind.GroupKind(), orphans); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
