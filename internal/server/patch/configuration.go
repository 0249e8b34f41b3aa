package patch

import (
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/server/wire"
)

// ReadConfiguration reads the body of an apply patch, YAML or JSON. duplicates are keys that occur twice.
func ReadConfiguration(body []byte) (_ *unstructured.Unstructured, duplicates []error, err error) {
	u := &unstructured.Unstructured{}
	if json.Valid(body) { // what clients send: a tenth of the work
		u.Object, duplicates, err = readJSON(body)
	} else {
		u.Object, duplicates, err = readYAML(body)
	}
	if err != nil {
		return nil, nil, err
	}
	if u.Object == nil {
		return nil, nil, apierrors.NewBadRequest("the applied configuration is empty")
	}
	for i, d := range duplicates {
		duplicates[i] = fmt.Errorf("error unmarshaling applied configuration: %w", d)
	}
	return u, duplicates, nil
}

func readJSON(body []byte) (object map[string]any, duplicates []error, err error) {
	if err := wire.StandardBounds().JSON(body); err != nil {
		return nil, nil, err
	}
	duplicates, err = kjson.UnmarshalStrict(body, &object)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	return object, duplicates, nil
}

func readYAML(body []byte) (object map[string]any, duplicates []error, err error) {
	if err := wire.StandardBounds().YAML(body); err != nil {
		return nil, nil, err
	}
	if err := yaml.Unmarshal(body, &object); err != nil {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	normalize(object)
	var again map[string]any
	if err := yaml.UnmarshalStrict(body, &again); err != nil {
		duplicates = append(duplicates, err)
	}
	return object, duplicates, nil
}

// normalize makes the whole numbers of v int64, as unstructured content has them.
func normalize(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			x[k] = normalize(e)
		}
	case []any:
		for i, e := range x {
			x[i] = normalize(e)
		}
	case float64:
		if i := int64(x); float64(i) == x {
			return i
		}
	}
	return v
}
