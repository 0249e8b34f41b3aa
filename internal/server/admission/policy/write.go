package policy

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/cel"
)

// exempt reports whether policies of the cluster do not apply to a resource: those by which they could lock themselves in.
func exempt(res *api.Resource) bool {
	if res.Group != admissionregistrationv1.GroupName {
		return false
	}
	switch res.Plural {
	case "validatingadmissionpolicies", "validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings":
		return true
	}
	return false
}

// write is one write, as far as policies have looked at it.
type write struct {
	a          *admission.Attributes
	source     Source
	catalog    *api.Catalog
	authorizer authz.Authorizer
	request    *match.Request
	views      map[schema.GroupVersionKind]*cel.View
	in         *corev1.Namespace // once it has been asked for
}

func newWrite(ctx context.Context, a *admission.Attributes, cfg *Config) *write {
	catalog := cfg.Catalog()
	return &write{
		a: a, source: cfg.Source, catalog: catalog, authorizer: cfg.Authorizer, request: a.Request(ctx, catalog),
		views: map[schema.GroupVersionKind]*cel.View{},
	}
}

// matches reports whether criteria mean the write, and in which version.
func (w *write) matches(c *match.Criteria) (match.Target, bool, error) {
	return w.a.Matches(c, w.request, w.source)
}

// object returns what is written, if anything is.
func (w *write) object() runtime.Object {
	if w.a.Object != nil {
		return w.a.Object
	}
	return w.a.Connection
}

// view returns the write as expressions see it, in a version.
func (w *write) view(ctx context.Context, t match.Target) (*cel.View, error) {
	if v := w.views[t.Kind]; v != nil {
		return v, nil
	}
	in := cel.Version{Kind: t.Kind, Resource: t.Resource}
	var err error
	if obj := w.object(); obj != nil {
		if in.Object, err = w.a.In(ctx, w.catalog, obj, t.Kind); err != nil {
			return nil, fmt.Errorf("failed to convert object version: %w", err)
		}
	}
	if w.a.Old != nil {
		if in.Old, err = w.a.In(ctx, w.catalog, w.a.Old, t.Kind); err != nil {
			return nil, fmt.Errorf("failed to convert object version: %w", err)
		}
	}
	v := cel.NewView(w.a, w.request.Target, in, w.authorizer)
	w.views[t.Kind] = v
	return v, nil
}

// namespace returns the namespace of the object that is written; nil where it is in none, as a namespace is.
func (w *write) namespace() (*corev1.Namespace, error) {
	name := w.a.Key.Namespace
	if name == "" || w.a.Resource == api.Namespaces || w.in != nil {
		return w.in, nil
	}
	obj, ok := w.source.Get(api.Namespaces, api.Key{Name: name})
	if !ok {
		return nil, apierrors.NewNotFound(api.Namespaces.GroupResource(), name)
	}
	w.in = obj.(*corev1.Namespace)
	return w.in, nil
}

// forbidden is a 403 about the object that is written.
func forbidden(a *admission.Attributes, message string) *apierrors.StatusError {
	name := a.Key.Name
	if name == "" && a.Object != nil {
		name = a.Object.GetName()
	}
	if name == "" && a.Object != nil {
		name = a.Object.GetGenerateName()
	}
	if name == "" {
		name = "Unknown"
	}
	return apierrors.NewForbidden(a.Resource.GroupResource(), name, fmt.Errorf("%s", message))
}

// call is a policy that a write is to be shown to, with one parameter; or what keeps that from happening: in the policy itself where binding
// is nil.
type call[P any] struct {
	rule    *rule[P]
	binding *binding
	target  match.Target
	param   runtime.Object // nil where there is none
	err     error
}

// meant returns which policies a write is shown to, in order.
func meant[P any](ctx context.Context, w *write, rules []*rule[P]) (calls []call[P]) {
	for _, r := range rules {
		target, chosen, err := w.matches(r.criteria)
		var kind *paramKind
		if err == nil && chosen {
			kind, err = findKind(w.catalog, r.kind)
		}
		if err != nil {
			calls = append(calls, call[P]{rule: r, err: err})
		}
		if err != nil || !chosen {
			continue
		}
		for _, b := range r.bindings {
			_, chosen, err := w.matches(b.criteria)
			if err == nil && !chosen {
				continue
			}
			var params []runtime.Object
			if err == nil {
				params, err = w.params(ctx, kind, b.params)
			}
			if err != nil {
				calls = append(calls, call[P]{rule: r, binding: b, err: err})
				continue
			}
			for _, p := range params {
				calls = append(calls, call[P]{rule: r, binding: b, target: target, param: p})
			}
		}
	}
	return calls
}
