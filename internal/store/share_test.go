package store_test

import (
	"fmt"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/store"
)

// sibling is one of several ConfigMaps whose names and contents begin alike.
func sibling(n int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "web-", Name: fmt.Sprint("web-", n), Labels: map[string]string{"color": "red"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web", UID: "1"}},
			Finalizers:      append(make([]string, 0, 8), "example.com/one"),
		},
		Data: map[string]string{"own": fmt.Sprint(n)},
	}
}

func same(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }

func TestWhatObjectsHaveInCommonIsKeptOnce(t *testing.T) {
	s, stop := run(t, store.NewMem())
	commit(t, s, write(s, sibling(1), 0))
	commit(t, s, write(s, sibling(2), 0))
	rev := commit(t, s, write(s, configMap("other", "red", 1), 0))
	get := func(name string) *corev1.ConfigMap {
		r, ok := s.Table(prefix).Get(name)
		if !ok {
			t.Fatalf("%s is not there", name)
		}
		return r.Object.(*corev1.ConfigMap)
	}
	one, two := get("web-1"), get("web-2")
	if !same(one.Labels, two.Labels) || !same(one.OwnerReferences, two.OwnerReferences) || !same(one.Finalizers, two.Finalizers) {
		t.Error("siblings do not share what is equal")
	}
	if two.Name != "web-2" || two.Data["own"] != "2" || one.Data["own"] != "1" {
		t.Errorf("what differs was changed: %v, %v", one, two)
	}
	if a, b := append(one.Finalizers, "a"), append(two.Finalizers, "b"); a[1] != "a" || b[1] != "b" {
		t.Errorf("who appends to one writes into the other: %v, %v", a, b)
	}
	if same(one.Labels, get("other").Labels) {
		t.Error("an object that is no sibling was searched for equal parts")
	}

	next := configMap("other", "red", 2)
	commit(t, s, write(s, next, rev))
	if now := get("other"); count(now) != 2 {
		t.Errorf("the next state is %v", now)
	}
	again := two.DeepCopy()
	again.Data["own"] = "3"
	r, _ := s.Table(prefix).Get("web-2")
	commit(t, s, write(s, again, r.Rev))
	if now := get("web-2"); !same(now.Labels, two.Labels) || now.Data["own"] != "3" || two.Data["own"] != "2" {
		t.Errorf("the next state %v does not share with the last, %v", now, two)
	}
	stop()
}

func TestWhatIsLoadedIsKeptOnce(t *testing.T) {
	backend := store.NewMem()
	first, stop := run(t, backend)
	for n := range 3 {
		commit(t, first, write(first, sibling(n), 0))
	}
	stop()
	s, _ := run(t, backend)
	var labels map[string]string
	s.Table(prefix).Snapshot().Ascend("", "", func(r *store.Revision) bool {
		m := r.Object.(*corev1.ConfigMap)
		if labels != nil && !same(labels, m.Labels) {
			t.Errorf("%s has labels of its own", m.Name)
		}
		labels = m.Labels
		return true
	})
	if labels["color"] != "red" {
		t.Errorf("labels %v", labels)
	}
}
