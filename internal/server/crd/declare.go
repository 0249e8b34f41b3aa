package crd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/version"

	"github.com/knarr-io/knarr/internal/api"
	packing "github.com/knarr-io/knarr/internal/api/definition"
)

// definition is what the versions of one kind share.
type definition struct {
	group     string
	names     apiextensionsv1.CustomResourceDefinitionNames // those that were accepted
	loose     bool
	forms     map[string]*form // by version, those that are no longer served or stored, too
	converter Converter        // nil: nothing but the apiVersion changes
}

// Declare returns the resources that a definition defines: one for each version. It
// returns an error where the definition's status has no names yet. converter converts between versions; nil changes the
// apiVersion alone.
func (f *Forms) Declare(def *apiextensionsv1.CustomResourceDefinition, converter Converter) ([]*api.Resource, error) {
	names := def.Status.AcceptedNames
	if names.Plural == "" || names.Kind == "" || names.ListKind == "" || names.Singular == "" {
		return nil, errors.New("the names are not accepted yet")
	}
	d := &definition{group: def.Spec.Group, names: names, loose: def.Spec.PreserveUnknownFields, forms: map[string]*form{}, converter: converter}
	for i := range def.Spec.Versions {
		v := &def.Spec.Versions[i]
		d.forms[v.Name] = f.find(v.Schema, d.loose)
	}
	at := slices.IndexFunc(def.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Storage })
	if at < 0 {
		return nil, errors.New("objects are stored in no version")
	}
	edition, reading := Edition(def), d.reading(def.Spec.Versions[at].Name)
	stored := d.declare(def, &def.Spec.Versions[at], edition, reading)
	out := []*api.Resource{stored}
	for i := range def.Spec.Versions {
		if v := &def.Spec.Versions[i]; i != at { // those that are not served, too: there may be objects of them in the store
			res := d.declare(def, v, edition, reading)
			res.Stored = stored
			out = append(out, res)
		}
	}
	slices.SortFunc(out, func(a, b *api.Resource) int { return version.CompareKubeAwareVersionStrings(b.Version, a.Version) })
	return out, nil
}

// Edition names what a definition says: another one where a client could see a difference in what it defines.
func Edition(def *apiextensionsv1.CustomResourceDefinition) string {
	h := sha256.New()
	outline, err := packing.Outline(def)
	if err != nil {
		fmt.Fprintf(h, "%s %v", def.ResourceVersion, err)
	}
	spec, err := outline.Spec.Marshal()
	names, err2 := json.Marshal(def.Status.AcceptedNames)
	if err := errors.Join(err, err2); err != nil {
		fmt.Fprintf(h, "%s %v", def.ResourceVersion, err)
	}
	h.Write(spec)
	h.Write(names)
	fmt.Fprintln(h, def.UID, def.DeletionTimestamp != nil)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// reading names how stored objects are read: by the schemas of all versions that they may say.
func (d *definition) reading(stored string) string {
	h := sha256.New()
	fmt.Fprintln(h, stored, d.names.Kind)
	for _, v := range slices.Sorted(maps.Keys(d.forms)) {
		fmt.Fprintln(h, v, d.forms[v].id)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// declare returns the resource of one version.
func (d *definition) declare(def *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion, edition, reading string) *api.Resource {
	f := d.forms[v.Name]
	r := api.Resource{
		GroupVersionKind: schema.GroupVersionKind{Group: d.group, Version: v.Name, Kind: d.names.Kind},
		Plural:           d.names.Plural, Singular: d.names.Singular, ShortNames: d.names.ShortNames, Categories: d.names.Categories,
		Namespaced: def.Spec.Scope == apiextensionsv1.NamespaceScoped,
		Prefix:     d.group + "/" + d.names.Plural,
		Default:    f.fill,
		Warnings:   finalizerWarnings,
		Dynamic: api.Dynamic{
			ListKind: d.names.ListKind, Hidden: !v.Served, Edition: edition, Reading: reading, Deprecation: deprecation(def, v),
			Receive: func(obj api.Object) ([]string, error) { return f.receive(obj.(*unstructured.Unstructured)) },
			Convert: func(ctx context.Context, objs []api.Object) ([]api.Object, error) {
				return d.convert(ctx, v.Name, objs)
			},
			Managed: d.typed,
			Schema:  f.schema,
		},
	}
	rules := &validation{form: f, namespaced: r.Namespaced}
	if sub := v.Subresources; sub != nil {
		r.Status = sub.Status != nil
		if rules.scale = sub.Scale; sub.Scale != nil {
			r.Scale = scaleAt(sub.Scale)
		}
	}
	r.Validate = func(obj api.Object) field.ErrorList { return rules.create(obj.(*unstructured.Unstructured)) }
	r.ValidateUpdate = func(obj, old api.Object, sub string) field.ErrorList {
		return rules.update(obj.(*unstructured.Unstructured), old.(*unstructured.Unstructured), sub)
	}
	columns := columnsOf(v)
	r.Columns, r.Cells = headers(columns), cells(columns)
	r.SelectableFields, r.Fields = selectable(v.SelectableFields)
	if def.DeletionTimestamp != nil {
		r.Refusal = refuseCreation(r.GroupResource())
	}
	res := api.Custom(r)
	res.Decode = d.restored(res.Decode)
	return res
}

// restored returns a function that reads a stored object and fits it to the schema of the version in which it was stored.
func (d *definition) restored(decode func([]byte) (api.Object, error)) func([]byte) (api.Object, error) {
	return func(data []byte) (api.Object, error) {
		obj, err := decode(data)
		if err != nil {
			return nil, err
		}
		u := obj.(*unstructured.Unstructured)
		if f := d.forms[u.GroupVersionKind().Version]; f != nil {
			f.restore(u)
		}
		return u, nil
	}
}

// refuseCreation refuses new objects of a definition that is being deleted, as its present ones are.
func refuseCreation(res schema.GroupResource) func(verb string) error {
	return func(verb string) error {
		if verb != "create" {
			return nil
		}
		return apierrors.NewForbidden(res, "", errors.New("create not allowed while custom resource definition is terminating"))
	}
}

// deprecation returns the warning that goes with every answer in a version, or "".
func deprecation(def *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) string {
	switch {
	case !v.Deprecated:
		return ""
	case v.DeprecationWarning != nil:
		return *v.DeprecationWarning
	}
	text := fmt.Sprintf("%s/%s %s is deprecated", def.Spec.Group, v.Name, def.Spec.Names.Kind)
	best := ""
	for _, other := range def.Spec.Versions {
		if other.Served && !other.Deprecated && version.CompareKubeAwareVersionStrings(v.Name, other.Name) < 0 &&
			(best == "" || version.CompareKubeAwareVersionStrings(best, other.Name) < 0) {
			best = other.Name
		}
	}
	if best != "" {
		text += fmt.Sprintf("; use %s/%s %s", def.Spec.Group, best, def.Spec.Names.Kind)
	}
	return text
}
