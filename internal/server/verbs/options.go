package verbs

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
	"github.com/knarr-io/knarr/internal/server/call"
)

// decodeObject reads an object of the target's resource and returns it as it is stored, without its TypeMeta, which the store
// does not keep.
func decodeObject(c *call.Call, validation string) (api.Object, error) {
	empty, err := api.Scheme.New(c.Target.Kind())
	if err != nil {
		return nil, err
	}
	obj, err := c.Decode(c.Target.Kind(), empty, validation)
	if err != nil {
		return nil, err
	}
	return stored(c, obj)
}

// stored turns an object in the client's version into the stored one.
func stored(c *call.Call, obj runtime.Object) (api.Object, error) {
	out, err := api.Convert(obj, c.Target.Res.GroupVersion())
	if err != nil {
		return nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return out.(api.Object), nil
}

// listOptions reads and checks the query of a list, watch or deletecollection.
func listOptions(c *call.Call) (*metainternal.ListOptions, error) {
	opts := &metainternal.ListOptions{}
	if err := metainternalscheme.ParameterCodec.DecodeParameters(c.Query, metav1.SchemeGroupVersion, opts); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if c.Target.Verb == "watch" {
		opts.Watch = true
	}
	if errs := metainternalvalidation.ValidateListOptions(opts, true); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}, "", errs)
	}
	if c.Target.Name != "" { // /watch/.../NAME
		byName := fields.OneTermEqualSelector("metadata.name", c.Target.Name)
		if opts.FieldSelector != nil && !opts.FieldSelector.Empty() {
			byName = fields.AndSelectors(byName, opts.FieldSelector)
		}
		opts.FieldSelector = byName
	}
	return opts, nil
}

// metaKind names the kind of request options in errors.
func metaKind(kind string) schema.GroupKind {
	return schema.GroupKind{Group: "meta.k8s.io", Kind: kind}
}
