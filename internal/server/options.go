package server

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metainternalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// decodeObject reads an object of the target's resource and returns it as it is stored, without its TypeMeta, which the store
// does not keep.
func (x *exchange) decodeObject(validation string) (api.Object, error) {
	empty, err := api.Scheme.New(x.t.kind())
	if err != nil {
		return nil, err
	}
	obj, err := x.decode(x.t.kind(), empty, validation)
	if err != nil {
		return nil, err
	}
	return x.stored(obj)
}

// stored turns an object in the client's version into the stored one.
func (x *exchange) stored(obj runtime.Object) (api.Object, error) {
	out, err := api.Convert(obj, x.t.Res.GroupVersion())
	if err != nil {
		return nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return out.(api.Object), nil
}

// listOptions reads and checks the query of a list, watch or deletecollection.
func (x *exchange) listOptions() (*metainternal.ListOptions, error) {
	opts := &metainternal.ListOptions{}
	if err := metainternalscheme.ParameterCodec.DecodeParameters(x.q, metav1.SchemeGroupVersion, opts); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if x.t.Verb == "watch" {
		opts.Watch = true
	}
	if errs := metainternalvalidation.ValidateListOptions(opts, true); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}, "", errs)
	}
	if x.t.Name != "" { // /watch/.../NAME
		byName := fields.OneTermEqualSelector("metadata.name", x.t.Name)
		if opts.FieldSelector != nil && !opts.FieldSelector.Empty() {
			byName = fields.AndSelectors(byName, opts.FieldSelector)
		}
		opts.FieldSelector = byName
	}
	return opts, nil
}

// manager is the name under which a write is recorded: the client's, or its user agent's first word.
func (x *exchange) manager(named string) string {
	if named != "" {
		return named
	}
	agent := x.r.UserAgent()
	for i, c := range agent {
		if c == '/' {
			agent = agent[:i]
			break
		}
	}
	if len(agent) > 128 {
		agent = agent[:128]
	}
	return agent
}
