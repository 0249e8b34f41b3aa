package patch

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// customKinds makes, defaults and converts unstructured objects for the record of managed fields: what the scheme does for built-in ones.
type customKinds struct {
	served func() *api.Catalog
	res    *api.Resource
}

// resource returns the resource of a kind, or an error that says, in terms that the record understands, that the version is no longer there.
func (k customKinds) resource(gvk schema.GroupVersionKind) (*api.Resource, error) {
	if gvk == k.res.GroupVersionKind {
		return k.res, nil
	}
	if res := k.served().Kind(gvk); res != nil && res.Table() == k.res.Table() {
		return res, nil
	}
	return nil, runtime.NewNotRegisteredErrForKind("the catalogue", gvk)
}

// New implements runtime.ObjectCreater.
func (k customKinds) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	res, err := k.resource(gvk)
	if err != nil {
		return nil, err
	}
	return res.New(), nil
}

// Default implements runtime.ObjectDefaulter.
func (k customKinds) Default(obj runtime.Object) {
	if res, err := k.resource(obj.GetObjectKind().GroupVersionKind()); err == nil {
		res.Default(obj.(api.Object))
	}
}

// ConvertToVersion implements runtime.ObjectConvertor.
func (k customKinds) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) {
	have := in.GetObjectKind().GroupVersionKind()
	want, ok := gv.KindForGroupVersionKinds([]schema.GroupVersionKind{have})
	if !ok {
		return nil, fmt.Errorf("%s does not convert to %s", have, gv.Identifier())
	}
	res, err := k.resource(want)
	if err != nil {
		return nil, err
	}
	out, err := res.Own(context.Background(), in.(api.Object))
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// Convert implements runtime.ObjectConvertor. The record of managed fields does not convert in place.
func (customKinds) Convert(in, _, _ any) error { return fmt.Errorf("converting a %T in place", in) }

// ConvertFieldLabel implements runtime.ObjectConvertor. The record of managed fields does not select.
func (customKinds) ConvertFieldLabel(gvk schema.GroupVersionKind, label, _ string) (string, string, error) {
	return "", "", fmt.Errorf("%s: field label not supported: %s", gvk.Kind, label)
}
