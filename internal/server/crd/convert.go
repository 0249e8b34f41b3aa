package crd

import (
	"context"
	"fmt"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// Converter converts objects of one kind to another version. The objects given are shared; what it returns, in their order, are
// objects of its own.
type Converter interface {
	Convert(ctx context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error)
}

// convert returns objects of any version of the definition in another one.
func (d *definition) convert(ctx context.Context, to string, objs []api.Object) ([]api.Object, error) {
	gv := schema.GroupVersion{Group: d.group, Version: to}
	out := make([]api.Object, len(objs))
	var others []*unstructured.Unstructured
	var at []int
	for i, o := range objs {
		out[i] = o
		have := o.GetObjectKind().GroupVersionKind()
		if have.GroupVersion() == gv {
			continue
		}
		if d.forms[have.Version] == nil || have.Group != d.group {
			return nil, apierrors.NewInternalError(fmt.Errorf("request to convert CR from an invalid group/version: %s", have.GroupVersion()))
		}
		others, at = append(others, o.(*unstructured.Unstructured)), append(at, i)
	}
	if len(others) == 0 {
		return out, nil
	}
	if d.converter != nil {
		converted, err := d.converter.Convert(ctx, others, gv)
		if err != nil {
			return nil, err
		}
		others = converted
	} else {
		for i, u := range others {
			others[i] = d.relabelled(u, gv)
		}
	}
	for i, u := range others {
		if err := d.forms[to].reshape(u); err != nil {
			return nil, err
		}
		out[at[i]] = u
	}
	return out, nil
}

// relabelled returns u as it is, but of another version: the strategy None.
func (d *definition) relabelled(u *unstructured.Unstructured, to schema.GroupVersion) *unstructured.Unstructured {
	if d.forms[u.GroupVersionKind().Version] != d.forms[to.Version] {
		u = u.DeepCopy() // the other schema drops fields
	} else {
		u = &unstructured.Unstructured{Object: maps.Clone(u.Object)}
	}
	u.SetAPIVersion(to.String())
	return u
}
