package api

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// SelectBy returns a selector whose names are those that Fields uses, for one whose names are those of group-version gv. It refuses names
// that cannot be selected by ("field label not supported: x").
func (r *Resource) SelectBy(gv schema.GroupVersion, selector fields.Selector) (fields.Selector, error) {
	return selector.Transform(func(name, value string) (string, string, error) {
		if !r.Unstructured {
			var err error
			if name, value, err = Scheme.ConvertFieldLabel(gv.WithKind(r.Kind), name, value); err != nil {
				return "", "", err
			}
		}
		if name != "metadata.name" && !(name == "metadata.namespace" && r.Namespaced) && !slices.Contains(r.SelectableFields, name) {
			return "", "", fmt.Errorf("field label not supported: %s", name)
		}
		return name, value, nil
	})
}

// FieldSet returns all that a field selector may name of obj: Fields and the two names that all kinds have.
func (r *Resource) FieldSet(obj Object) fields.Set {
	var set fields.Set
	if r.Fields != nil {
		set = r.Fields(obj)
	} else {
		set = make(fields.Set, 2)
	}
	set["metadata.name"] = obj.GetName()
	if r.Namespaced {
		set["metadata.namespace"] = obj.GetNamespace()
	}
	return set
}
