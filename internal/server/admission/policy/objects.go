package policy

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/cel"
)

// types are the typed values by which apply configurations are merged. Those of a custom resource are made at the first use and kept until its
// declaration changes.
type types struct {
	mu   sync.Mutex
	made map[*api.Resource]managedfields.TypeConverter
}

// of returns the typed values of a kind.
func (t *types) of(catalog *api.Catalog, kind schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	res := catalog.Kind(kind)
	if res == nil || !res.Unstructured {
		return api.TypeConverter(), nil // kinds of subresources, too
	}
	if res.Managed == nil {
		return managedfields.NewDeducedTypeConverter(), nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.made[res]; c != nil {
		return c, nil
	}
	c, err := res.Managed()
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("Resource kind %s not found. "+
			"There can be a delay between when CustomResourceDefinitions are created and when they are available.", kind))
	}
	for old := range t.made {
		if !catalog.Has(old) {
			delete(t.made, old)
		}
	}
	if t.made == nil {
		t.made = map[*api.Resource]managedfields.TypeConverter{}
	}
	t.made[res] = c
	return c, nil
}

// whole returns what a patch has made as an object like that which it was made of, with defaults.
func whole(catalog *api.Catalog, obj, like runtime.Object, kind schema.GroupVersionKind) (runtime.Object, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		if _, custom := like.(*unstructured.Unstructured); !custom {
			typed := reflect.New(reflect.TypeOf(like).Elem()).Interface().(runtime.Object)
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
				return nil, err
			}
			obj = typed
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(kind)
	if res := catalog.Kind(kind); res != nil && res.GroupVersionKind == kind {
		res.Default(obj.(api.Object))
	} else {
		api.Scheme.Default(obj)
	}
	return obj, nil
}

// write puts what a view's object has become into the place of the one that is written. What other versions were converted from is no longer so.
func (w *write) write(ctx context.Context, t match.Target, view *cel.View) error {
	obj, err := w.a.Back(ctx, w.catalog, view.Object(), t.Kind)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to convert object: %w", err))
	}
	if obj == view.Object() {
		obj = obj.DeepCopyObject() // the view goes on with its own
	}
	switch was := w.object().(type) {
	case *unstructured.Unstructured:
		was.Object = obj.(*unstructured.Unstructured).Object
	default:
		reflect.ValueOf(was).Elem().Set(reflect.ValueOf(obj).Elem())
	}
	clear(w.views)
	w.views[t.Kind] = view
	return nil
}
