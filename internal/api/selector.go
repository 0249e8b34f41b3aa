package api

import (
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// FieldSelector parses a field selector of a request for r in group-version gv into the names that Fields uses, and
// refuses names that cannot be selected by ("field label not supported: x").
func (r *Resource) FieldSelector(gv schema.GroupVersion, text string) (fields.Selector, error) {
	selector, err := fields.ParseSelector(text)
	if err != nil || selector.Empty() {
		return selector, err
	}
	gvk := gv.WithKind(r.Kind)
	return selector.Transform(func(name, value string) (string, string, error) {
		return Scheme.ConvertFieldLabel(gvk, name, value)
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
