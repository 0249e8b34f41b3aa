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
			if spec, err = numberAt(content, paths.SpecReplicasPath, true); err != nil {
				return 0, 0, "", err
			}
			if status, err = numberAt(content, paths.StatusReplicasPath, false); err != nil {
				return 0, 0, "", err
			}
			if paths.LabelSelectorPath != nil {
				selector, _, err = unstructured.NestedString(content, steps(*paths.LabelSelectorPath)...)
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

// numberAt returns the number of replicas at a path. A required one that is missing is an error.
func numberAt(content map[string]any, path string, required bool) (int32, error) {
	n, found, err := unstructured.NestedInt64(content, steps(path)...)
	switch {
	case err != nil:
		return 0, err
	case !found && required:
		return 0, fmt.Errorf("the spec replicas field %q does not exist", path)
	case n < 0 || n > math.MaxInt32:
		return 0, fmt.Errorf("the replicas at %q are out of range: %d", path, n)
	}
	return int32(n), nil
}
