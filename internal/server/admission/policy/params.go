package policy

import (
	"context"
	"errors"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// paramKind is the kind of a policy's parameters, as it is served.
type paramKind struct {
	gvk schema.GroupVersionKind
	res *api.Resource
}

// findKind returns the kind of a policy's parameters; nil if it has none.
func findKind(catalog *api.Catalog, kind *admissionregistrationv1.ParamKind) (*paramKind, error) {
	if kind == nil {
		return nil, nil
	}
	gvk := schema.FromAPIVersionAndKind(kind.APIVersion, kind.Kind)
	res := catalog.Kind(gvk)
	if res == nil || res.Hidden {
		return nil, fmt.Errorf("failed to find resource referenced by paramKind: '%v'", gvk)
	}
	return &paramKind{gvk, res}, nil
}

// selection says which objects are the parameters of a binding.
type selection struct {
	none      bool // the policy is evaluated without
	namespace string
	name      string
	labels    labels.Selector // where there is no name
}

// choose returns which objects are the parameters of a binding, for a write in a namespace.
func choose(kind *paramKind, ref *admissionregistrationv1.ParamRef, namespace string) (selection, error) {
	if kind == nil || ref == nil {
		return selection{none: true}, nil
	}
	s := selection{name: ref.Name}
	switch {
	case kind.res.Namespaced && ref.Namespace != "":
		s.namespace = ref.Namespace
	case kind.res.Namespaced && namespace == "":
		return s, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
	case kind.res.Namespaced:
		s.namespace = namespace
	case ref.Namespace != "":
		return s, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	}
	switch {
	case ref.Name != "" && ref.Selector != nil:
		return s, errors.New("paramRef.name and paramRef.selector are mutually exclusive")
	case ref.Name == "" && ref.Selector == nil:
		return s, errors.New("one of name or selector must be provided")
	case ref.Selector != nil:
		var err error
		s.labels, err = metav1.LabelSelectorAsSelector(ref.Selector)
		return s, err
	}
	return s, nil
}

// params returns the parameters of a binding: one nil where there are to be none, nothing where those that it names are not there and may be missing.
func (w *write) params(ctx context.Context, kind *paramKind, ref *admissionregistrationv1.ParamRef) ([]runtime.Object, error) {
	s, err := choose(kind, ref, w.a.Key.Namespace)
	if err != nil {
		return nil, err
	}
	if s.none {
		return []runtime.Object{nil}, nil
	}
	var found []api.Object
	if s.name != "" {
		if obj, ok := w.source.Get(kind.res, api.Key{Namespace: s.namespace, Name: s.name}); ok {
			found = append(found, obj)
		}
	} else {
		w.source.List(kind.res, s.namespace, func(obj api.Object) bool {
			if s.labels.Matches(labels.Set(obj.GetLabels())) {
				found = append(found, obj)
			}
			return true
		})
	}
	if len(found) == 0 {
		if ref.ParameterNotFoundAction != nil && *ref.ParameterNotFoundAction == admissionregistrationv1.DenyAction {
			return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
		}
		return nil, nil
	}
	return kind.versioned(ctx, found)
}

// versioned returns objects in the version that the policy names, with their kind.
func (k *paramKind) versioned(ctx context.Context, objs []api.Object) ([]runtime.Object, error) {
	own, err := k.res.Own(ctx, objs...)
	if err != nil {
		return nil, err
	}
	out := make([]runtime.Object, len(own))
	for i, o := range own {
		v, err := k.res.Versioned(o, k.gvk.GroupVersion())
		if err == nil {
			v, err = k.res.Whole(v)
		}
		if err != nil {
			return nil, err
		}
		if v.GetObjectKind().GroupVersionKind() != k.gvk {
			v = v.DeepCopyObject().(api.Object)
			v.GetObjectKind().SetGroupVersionKind(k.gvk)
		}
		out[i] = v
	}
	return out, nil
}
