package store

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func mirrored(name string, rev int64, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: FormatRevision(rev)}, Data: map[string]string{"k": value}}
}

func TestMirrorNeverGoesBack(t *testing.T) {
	m := NewMirror(Spec{Prefix: "/registry/configmaps/"})
	value := func(key string) string {
		r, ok := m.Table().Get(key)
		if !ok {
			return "(none)"
		}
		return r.Object.(*corev1.ConfigMap).Data["k"]
	}
	m.Replace(map[string]Object{"a": mirrored("a", 3, "listed"), "b": mirrored("b", 5, "listed")}, 10)
	for _, step := range []struct {
		what string
		do   func()
		a, b string
	}{
		{"an answer to a write is seen at once", func() { m.Ahead("a", mirrored("a", 12, "written")) }, "written", "listed"},
		{"an older event changes nothing", func() { m.Apply("a", mirrored("a", 11, "older"), false) }, "written", "listed"},
		{"a deletion is taken over", func() { m.Apply("b", mirrored("b", 13, ""), true) }, "written", "(none)"},
		{"a late answer does not bring the object back", func() { m.Ahead("b", mirrored("b", 12, "ghost")) }, "written", "(none)"},
		{"a new list removes what it lacks", func() { m.Replace(map[string]Object{"b": mirrored("b", 20, "new")}, 21) }, "(none)", "new"},
		{"but nothing newer than itself", func() { m.Ahead("a", mirrored("a", 25, "later")); m.Replace(map[string]Object{}, 24) }, "later", "(none)"},
	} {
		step.do()
		if a, b := value("a"), value("b"); a != step.a || b != step.b {
			t.Errorf("%s: a %s, b %s; want %s, %s", step.what, a, b, step.a, step.b)
		}
	}
}
