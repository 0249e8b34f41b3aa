package policycheck

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/openapi"
)

// mapper finds the kinds of resources in a catalogue. It is no more of a RESTMapper than type checking asks for.
type mapper struct {
	meta.RESTMapper
	catalog *api.Catalog
}

// KindsFor returns the kind of the objects of a resource.
func (m mapper) KindsFor(gvr schema.GroupVersionResource) ([]schema.GroupVersionKind, error) {
	res, ok := m.catalog.Find(gvr)
	if !ok {
		return nil, &meta.NoResourceMatchError{PartialResource: gvr}
	}
	return []schema.GroupVersionKind{gvr.GroupVersion().WithKind(res.Kind)}, nil
}

// schemas finds the schemas of the kinds in a catalogue.
type schemas struct{ catalog *api.Catalog }

// ResolveSchema returns the schema of a kind, with those that it refers to in it.
func (s schemas) ResolveSchema(gvk schema.GroupVersionKind) (*spec.Schema, error) {
	res := s.catalog.Kind(gvk)
	if res == nil {
		return nil, fmt.Errorf("%v is not served: %w", gvk, resolver.ErrSchemaNotFound)
	}
	known, err := document(res, gvk.GroupVersion())
	if err != nil {
		return nil, fmt.Errorf("describing %v: %w", gvk, err)
	}
	for name, described := range known {
		var kinds []schema.GroupVersionKind
		if described.Extensions.GetObject("x-kubernetes-group-version-kind", &kinds) == nil && slices.Contains(kinds, gvk) {
			return resolver.PopulateRefs(func(ref string) (*spec.Schema, bool) {
				found, ok := known[strings.TrimPrefix(ref, "#/components/schemas/")]
				return found, ok
			}, name)
		}
	}
	return nil, fmt.Errorf("%v has no schema: %w", gvk, resolver.ErrSchemaNotFound)
}

// document returns the schemas of the OpenAPI document of a group-version in which there is but one resource.
func document(res *api.Resource, gv schema.GroupVersion) (map[string]*spec.Schema, error) {
	doc, ok, err := openapi.New([]*api.Resource{res}, nil, "").V3(gv)
	if err != nil || !ok {
		return nil, err
	}
	text, err := doc.JSON()
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	return parsed.Components.Schemas, json.Unmarshal(text, &parsed)
}
