package registry_test

import (
	"errors"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/store"
)

// widgets are what a definition of a kind adds.
func widgets() *api.Resource {
	return api.Custom(api.Resource{
		GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"},
		Plural:           "widgets", Singular: "widget", Namespaced: true, Prefix: "example.com/widgets",
	})
}

// A resource that joins while the server runs is written, read, watched and indexed as others are; when it leaves, its watches end and
// writes are refused, and what is stored is there when it comes back.
func TestServeAndRetire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := clienttest.NewRegistry(t)
		w := widgets()
		if err := r.Serve(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		if err := r.Serve(t.Context(), widgets()); err == nil {
			t.Error("it is served twice")
		}
		if !r.Served().Now().Has(w) {
			t.Fatal("it is not in the catalogue")
		}
		widget := func(name string) api.Object {
			m := w.New()
			m.SetNamespace(key(name).Namespace)
			m.SetName(name)
			m.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u"}})
			return m
		}
		watch, err := c.Watch(t.Context(), w, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Stop()
		if _, err := c.Create(t.Context(), widget("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), api.ConfigMaps, key("a")); !apierrors.IsNotFound(err) {
			t.Errorf("a widget is a config map: %v", err)
		}
		if list, err := c.List(t.Context(), w, client.ListOptions{Index: client.IndexOwner, Value: "u"}); err != nil || len(list) != 1 ||
			list[0].GetObjectKind().GroupVersionKind() != w.GroupVersionKind {
			t.Errorf("by owner: %v, %v", list, err)
		}

		r.Retire(w)
		for {
			if _, err = watch.Next(t.Context()); err != nil {
				break
			}
		}
		if !errors.Is(err, store.ErrDropped) {
			t.Errorf("the watch ended with %v", err)
		}
		if r.Served().Now().Has(w) {
			t.Error("it is still in the catalogue")
		}
		if _, err := r.Create(t.Context(), w, widget("b"), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("a write after it left: %v", err)
		}

		if err := r.Serve(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		if list, err := c.List(t.Context(), w, client.ListOptions{}); err != nil || len(list) != 1 {
			t.Errorf("when it came back: %v, %v", list, err)
		}
	})
}
