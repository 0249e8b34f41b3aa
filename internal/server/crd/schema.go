package crd

import (
	"encoding/json"
	"fmt"
	"slices"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// schema returns the OpenAPI schema of objects without apiVersion, kind and metadata, as a JSON object; nil where any object is
// valid. Schemas that are not structural are not published.
func (f *form) schema(v3 bool) (map[string]any, error) {
	if f.props == nil {
		return nil, nil
	}
	in, err := internalProps(f.props)
	if err != nil {
		return nil, err
	}
	s, err := structural.NewStructural(in)
	if err != nil || len(structural.ValidateStructural(nil, s)) > 0 {
		return nil, nil
	}
	s = s.Unfold()
	if !v3 {
		if s.XPreserveUnknownFields || f.loose {
			return nil, nil // kubectl would refuse all fields that are not named
		}
		s = reduced(s)
	}
	b, err := json.Marshal(s.ToKubeOpenAPI())
	if err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	return out, nil
}

// reduced returns what OpenAPI v2 can say of a schema, and what kubectl copes with.
func reduced(in *structural.Structural) *structural.Structural {
	out := in.DeepCopy()
	(&structural.Visitor{Structural: reduce}).Visit(out)
	return out
}

// reduce reduces one level of a schema and reports whether it changed.
func reduce(s *structural.Structural) bool {
	changed := false
	if v := s.ValueValidation; v != nil && (v.AllOf != nil || v.OneOf != nil || v.AnyOf != nil || v.Not != nil) {
		v.AllOf, v.OneOf, v.AnyOf, v.Not = nil, nil, nil, nil
		changed = true
	}
	if s.Nullable {
		s.Type, s.Nullable = "", false
		s.Items, s.Properties = nil, nil
		changed = true
	}
	if s.XPreserveUnknownFields {
		s.Items, s.Properties = nil, nil
		changed = true
	}
	if s.Type == "array" && s.Items == nil || s.Type == "object" && s.XPreserveUnknownFields {
		s.Type = ""
		changed = true
	}
	if s.ValueValidation == nil {
		return changed
	}
	for name, p := range s.Properties {
		if p.Nullable && slices.Contains(s.ValueValidation.Required, name) {
			s.ValueValidation.Required = slices.DeleteFunc(s.ValueValidation.Required, func(r string) bool { return r == name })
			changed = true
		}
	}
	if a := s.AdditionalProperties; a != nil && a.Structural != nil && a.Structural.Nullable {
		s.ValueValidation.Required = nil
		changed = true
	}
	return changed
}
