package api

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// widgets are what a definition of a kind adds.
func widgets() *Resource {
	return Custom(Resource{
		GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"},
		Plural:           "widgets", Singular: "widget", Namespaced: true, Prefix: "example.com/widgets",
	})
}

func TestCatalog(t *testing.T) {
	before := BuiltinCatalog()
	w := widgets()
	after, err := before.With(w)
	if err != nil {
		t.Fatal(err)
	}
	name := schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
	for what, tc := range map[string]struct {
		c    *Catalog
		want *Resource
	}{"before": {before, nil}, "after": {after, w}, "without": {after.Without(w), nil}} {
		got, ok := tc.c.Find(name)
		if got != tc.want || ok != (tc.want != nil) || tc.c.Kind(w.GroupVersionKind) != tc.want || tc.c.Has(w) != ok {
			t.Errorf("%s: %v", what, got)
		}
		if tc.c.Type(reflect.TypeFor[*corev1.ConfigMap]()) != ConfigMaps {
			t.Errorf("%s: the type of config maps is that of others", what)
		}
	}
	if n := len(after.All()); n != len(Builtin)+1 || after.All()[n-1] != w || len(before.All()) != len(Builtin) {
		t.Errorf("%d resources, %d before", n, len(before.All()))
	}
	if r, _ := before.Find(eventsv1.SchemeGroupVersion.WithResource("events")); r != Events {
		t.Errorf("events in their second group: %v", r)
	}

	if after.Of(w.New()) != w || before.Of(w.New()) != nil || after.Of(&corev1.Pod{}) != Pods {
		t.Error("objects belong to other resources")
	}
	pod := &unstructured.Unstructured{}
	pod.SetGroupVersionKind(Pods.GroupVersionKind)
	if after.Of(pod) != Pods {
		t.Error("an unstructured pod is none")
	}
}

// Each version of a custom resource is found by its own name and kind, but for those that are only stored; all have one table.
func TestCatalogHasVersions(t *testing.T) {
	w := widgets()
	old, new := *w, *w
	old.Version, new.Version, w.Hidden = "v1beta1", "v2", true
	old.Stored, new.Stored = w, w
	c, err := BuiltinCatalog().With(&old, w, &new)
	if err != nil {
		t.Fatal(err)
	}
	for r, served := range map[*Resource]bool{w: false, &old: true, &new: true} {
		if found, ok := c.Find(r.GroupVersionResource()); ok != served || served && found != r {
			t.Errorf("%s: %v %v", r.Version, found, ok)
		}
		if c.Kind(r.GroupVersionKind) != r {
			t.Errorf("%s is not found by its kind", r.Version)
		}
	}
	if n := len(c.Stored()); n != len(Builtin)+1 || c.Stored()[n-1] != w {
		t.Errorf("%d tables", n)
	}
	if c = c.Without(&old, w, &new); len(c.All()) != len(Builtin) || len(c.Stored()) != len(Builtin) {
		t.Error("they did not leave")
	}
	if _, err := c.With(&old); err == nil {
		t.Error("a version came without the one that is stored")
	}
}

func TestCatalogRefusesWhatIsTaken(t *testing.T) {
	for what, change := range map[string]func(*Resource){
		"the kind":  func(r *Resource) { r.GroupVersionKind = Pods.GroupVersionKind; r.Plural = "others" },
		"the name":  func(r *Resource) { r.GroupVersionKind = corev1.SchemeGroupVersion.WithKind("Other"); r.Plural = "pods" },
		"the table": func(r *Resource) { r.Prefix = Pods.Prefix },
		"a version": func(r *Resource) { r.Versions = []schema.GroupVersion{corev1.SchemeGroupVersion}; r.Plural = "pods" },
	} {
		w := widgets()
		change(w)
		if _, err := BuiltinCatalog().With(w); err == nil {
			t.Errorf("%s of pods was given away", what)
		}
	}
}

func TestServedTellsOfChanges(t *testing.T) {
	s := NewServed(BuiltinCatalog())
	_, changed := s.Catalog()
	w := widgets()
	if err := s.Change(func(c *Catalog) (*Catalog, error) { return c.With(w) }); err != nil {
		t.Fatal(err)
	}
	<-changed
	now, again := s.Catalog()
	if !now.Has(w) || s.Now() != now {
		t.Error("the change is not there")
	}
	if err := s.Change(func(c *Catalog) (*Catalog, error) { return c.With(w) }); err == nil || s.Now() != now {
		t.Error("a change that failed was made")
	}
	select {
	case <-again:
		t.Error("a change that failed was told")
	default:
	}
}
