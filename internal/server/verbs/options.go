package verbs

import (
	"strings"

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
	empty, err := c.Target.Res.NewIn(c.Target.GV())
	if err != nil {
		return nil, err
	}
	decoded, err := c.Decode(c.Target.Kind(), empty, validation)
	if err != nil {
		return nil, err
	}
	obj, unknown, err := stored(c, decoded)
	if err != nil {
		return nil, err
	}
	return obj, judge(c, unknown, validation)
}

// stored turns what a client sent, in its version, into an object of the resource's own. unknown are the fields that were dropped.
func stored(c *call.Call, decoded runtime.Object) (_ api.Object, unknown []string, err error) {
	res, obj := c.Target.Res, decoded.(api.Object)
	if res.Unstructured {
		if res.Receive != nil {
			unknown, err = res.Receive(obj)
		}
		return obj, unknown, err
	}
	out, err := api.Convert(obj, res.GroupVersion())
	if err != nil {
		return nil, nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return out.(api.Object), nil, nil
}

// judge refuses unknown fields, tells of them or passes them over, as the client wishes.
func judge(c *call.Call, unknown []string, validation string) error {
	switch {
	case len(unknown) == 0 || validation == metav1.FieldValidationIgnore:
	case validation == metav1.FieldValidationStrict:
		return apierrors.NewBadRequest("strict decoding error: " + strings.Join(unknown, ", "))
	default:
		c.Warn(unknown)
	}
	return nil
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
