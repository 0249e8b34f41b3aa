package crd

import (
	"fmt"
	"math"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/knarr-io/knarr/internal/api"
)

// scaleAt returns the scale subresource of objects that keep its numbers at the paths of a definition.
func scaleAt(paths *apiextensionsv1.CustomResourceSubresourceScale) *api.Scale {
	return &api.Scale{
		Get: func(obj api.Object) (spec, status int32, selector string, err error) {
			content := obj.(*unstructured.Unstructured).Object
			spec, found, err := numberAt(content, paths.SpecReplicasPath)
			if err != nil {
				return 0, 0, "", err
			}
			if status, _, err = numberAt(content, paths.StatusReplicasPath); err != nil {
				return 0, 0, "", err
			}
			if paths.LabelSelectorPath != nil {
				if selector, _, err = unstructured.NestedString(content, steps(*paths.LabelSelectorPath)...); err != nil {
					return 0, 0, "", err
				}
			}
			if !found {
				err = api.MissingReplicas{Path: paths.SpecReplicasPath}
			}
			return spec, status, selector, err
		},
		Set: func(obj api.Object, replicas int32) {
			content := obj.(*unstructured.Unstructured).Object
			at := steps(paths.SpecReplicasPath)
			if unstructured.SetNestedField(content, int64(replicas), at...) != nil { // something on the way is no object
				unstructured.RemoveNestedField(content, at[0])
				_ = unstructured.SetNestedField(content, int64(replicas), at...)
			}
		},
	}
}

// numberAt returns the number of replicas at a path, and whether there is one.
func numberAt(content map[string]any, path string) (_ int32, found bool, _ error) {
	n, found, err := unstructured.NestedInt64(content, steps(path)...)
	switch {
	case err != nil:
		return 0, false, err
	case n < 0 || n > math.MaxInt32:
		return 0, false, fmt.Errorf("the replicas at %q are out of range: %d", path, n)
	}
	return int32(n), found, nil
}
