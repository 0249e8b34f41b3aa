package definition

import (
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	definitionvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Warnings names what a definition's schemas say without effect, where the definition before did not say it: formats that
// nobody knows, and sets of what cannot be an element of a set.
func Warnings(crd, old *apiextensions.CustomResourceDefinition) []string {
	var had []string
	if old != nil {
		had = schemaWarnings(&old.Spec)
	}
	return slices.DeleteFunc(schemaWarnings(&crd.Spec), func(w string) bool { return slices.Contains(had, w) })
}

func schemaWarnings(def *apiextensions.CustomResourceDefinitionSpec) []string {
	var formats, sets []string
	version := environment.DefaultCompatibilityVersion()
	look := func(s *apiextensions.JSONSchemaProps) bool {
		if s.Format != "" {
			of := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
			for _, f := range schemavalidation.GetUnrecognizedFormats(of, version) {
				formats = append(formats, fmt.Sprintf("unrecognized format %q", f))
			}
		}
		if s.XListType != nil && *s.XListType == "set" && s.Items != nil && s.Items.Schema != nil {
			if t := s.Items.Schema.Type; t == "object" || t == "array" {
				sets = append(sets, fmt.Sprintf("x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", t))
			}
		}
		return false // go on
	}
	validations := []*apiextensions.CustomResourceValidation{def.Validation}
	for i := range def.Versions {
		validations = append(validations, def.Versions[i].Schema)
	}
	for _, v := range validations {
		if v != nil && v.OpenAPIV3Schema != nil {
			definitionvalidation.SchemaHas(v.OpenAPIV3Schema, look)
		}
	}
	slices.Sort(sets)
	return append(formats, slices.Compact(sets)...)
}
