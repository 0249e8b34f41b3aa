package api

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// widgets are config maps by another name: what a definition of a kind adds.
func widgets() *Resource {
	r := *ConfigMaps
	r.GroupVersionKind = schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"}
	r.Plural, r.Singular, r.ShortNames, r.Prefix = "widgets", "widget", nil, "example.com/widgets"
	return &r
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

	plain, widget := &corev1.ConfigMap{}, &corev1.ConfigMap{}
	widget.SetGroupVersionKind(w.GroupVersionKind)
	if after.Of(plain) != ConfigMaps || after.Of(widget) != w || before.Of(widget) != ConfigMaps || after.Of(&corev1.Pod{}) != Pods {
		t.Error("objects belong to other resources")
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
