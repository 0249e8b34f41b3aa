package crd

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/api"
)

// definitionOf reads a definition whose names are accepted.
func definitionOf(t *testing.T, manifest string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	def := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte(manifest), def); err != nil {
		t.Fatal(err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(def)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&def.Spec)
	def.Status.AcceptedNames = def.Spec.Names
	return def
}

// declared returns what a definition declares, by version.
func declared(t *testing.T, def *apiextensionsv1.CustomResourceDefinition, c Converter) map[string]*api.Resource {
	t.Helper()
	list, err := new(Forms).Declare(def, c)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*api.Resource{}
	for _, r := range list {
		out[r.Version] = r
	}
	return out
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	return u
}

// sails has three versions: v2 is stored, v1 has other fields, v1alpha1 is no longer served.
const sails = `
metadata: {name: sails.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: sails, singular: sail, kind: Sail, listKind: SailList}
  versions:
  - name: v1alpha1
    served: false
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
  - name: v1
    served: true
    storage: false
    deprecated: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {area: {type: integer, default: 7}, cloth: {type: string}}}
  - name: v2
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, default: {}, properties: {area: {type: integer, default: 9, minimum: 1}, note: {type: string, nullable: true}}}
          status: {type: object, properties: {torn: {type: boolean}}}
`

func TestVersionsAreDeclared(t *testing.T) {
	list, err := new(Forms).Declare(definitionOf(t, sails), nil)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, r := range list {
		order = append(order, r.Version)
		if r.StoredAs().Version != "v2" || r.Table() != list[0].Table() {
			t.Errorf("%s is stored as %s in %s", r.Version, r.StoredAs().Version, r.Table())
		}
		if r.Hidden != (r.Version == "v1alpha1") || r.Status != (r.Version == "v2") {
			t.Errorf("%s: hidden %v, status %v", r.Version, r.Hidden, r.Status)
		}
		if want := map[string]string{"v1": "example.com/v1 Sail is deprecated; use example.com/v2 Sail"}[r.Version]; r.Deprecation != want {
			t.Errorf("%s: warns %q, want %q", r.Version, r.Deprecation, want)
		}
	}
	if want := []string{"v2", "v1", "v1alpha1"}; !reflect.DeepEqual(order, want) {
		t.Errorf("the order is %v, want %v", order, want)
	}
}

func TestWhatCannotBeDeclared(t *testing.T) {
	for want, change := range map[string]func(*apiextensionsv1.CustomResourceDefinition){
		"not accepted":         func(d *apiextensionsv1.CustomResourceDefinition) { d.Status.AcceptedNames.Kind = "" },
		"stored in no version": func(d *apiextensionsv1.CustomResourceDefinition) { d.Spec.Versions[2].Storage = false },
	} {
		def := definitionOf(t, sails)
		change(def)
		if _, err := new(Forms).Declare(def, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// An edition changes with whatever a client could see, how the store is read only with schemas and the stored version.
func TestEditionAndReading(t *testing.T) {
	base := definitionOf(t, sails)
	for name, c := range map[string]struct {
		change           func(*apiextensionsv1.CustomResourceDefinition)
		edition, reading bool
	}{
		"its resourceVersion": {func(d *apiextensionsv1.CustomResourceDefinition) { d.ResourceVersion = "9" }, false, false},
		"a condition": {func(d *apiextensionsv1.CustomResourceDefinition) {
			d.Status.Conditions = append(d.Status.Conditions, apiextensionsv1.CustomResourceDefinitionCondition{Type: "x"})
		}, false, false},
		"a column": {func(d *apiextensionsv1.CustomResourceDefinition) {
			d.Spec.Versions[2].AdditionalPrinterColumns = []apiextensionsv1.CustomResourceColumnDefinition{{Name: "A", Type: "string", JSONPath: ".spec.note"}}
		}, true, false},
		"a short name": {func(d *apiextensionsv1.CustomResourceDefinition) { d.Status.AcceptedNames.ShortNames = []string{"sl"} }, true, false},
		"a schema":     {func(d *apiextensionsv1.CustomResourceDefinition) { d.Spec.Versions[1].Schema = nil }, true, true},
		"the stored version": {func(d *apiextensionsv1.CustomResourceDefinition) {
			d.Spec.Versions[1].Storage, d.Spec.Versions[2].Storage = true, false
		}, true, true},
		"another object of its name": {func(d *apiextensionsv1.CustomResourceDefinition) { d.UID = "other" }, true, false},
	} {
		def := base.DeepCopy()
		c.change(def)
		was, is := declared(t, base, nil)["v2"], declared(t, def, nil)["v2"]
		if (was.Edition != is.Edition) != c.edition || (was.Reading != is.Reading) != c.reading {
			t.Errorf("%s: another edition %v, read otherwise %v; want %v, %v", name, was.Edition != is.Edition, was.Reading != is.Reading, c.edition, c.reading)
		}
	}
}

// What comes from the store fits the schema of the version in which it was written, and has defaults that are newer than it.
func TestStoredObjectsAreRestored(t *testing.T) {
	r := declared(t, definitionOf(t, sails), nil)["v2"]
	for stored, want := range map[string]string{
		`{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"name":"a","generation":3},"spec":{"old":1}}`:             `{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"generation":3,"name":"a"},"spec":{"area":9}}`,
		`{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"name":"a","generation":3}}`:                              `{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"generation":3,"name":"a"},"spec":{"area":9}}`,
		`{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"name":"a"},"spec":{"area":null,"note":null}}`:            `{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"generation":1,"name":"a"},"spec":{"area":9,"note":null}}`,
		`{"apiVersion":"example.com/v1","kind":"Sail","metadata":{"name":"a","generation":1},"spec":{"cloth":"x"}}`:         `{"apiVersion":"example.com/v1","kind":"Sail","metadata":{"generation":1,"name":"a"},"spec":{"area":7,"cloth":"x"}}`,
		`{"apiVersion":"example.com/v1alpha1","kind":"Sail","metadata":{"name":"a","generation":1},"any":{"thing":[1]}}`:    `{"any":{"thing":[1]},"apiVersion":"example.com/v1alpha1","kind":"Sail","metadata":{"generation":1,"name":"a"}}`,
		`{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"name":"a","generation":1,"labels":7},"spec":{"area":1}}`: `{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"generation":1,"name":"a"},"spec":{"area":1}}`,
	} {
		obj, err := r.Decode([]byte(stored))
		if err != nil {
			t.Errorf("%s: %v", stored, err)
			continue
		}
		b, err := json.Marshal(obj.(*unstructured.Unstructured).Object)
		if err != nil || string(b) != want {
			t.Errorf("%s:\n%s, want\n%s; %v", stored, b, want, err)
		}
	}
	if _, err := r.Decode([]byte(`{"apiVersion":"v1","kind":"Pod"}`)); err == nil {
		t.Error("an object of another kind was taken")
	}
}

// Converting by name alone changes the apiVersion, and drops what the other version does not have. The object that was given stays as it was.
func TestConversionByName(t *testing.T) {
	v := declared(t, definitionOf(t, sails), nil)
	given := object(t, "{apiVersion: example.com/v2, kind: Sail, metadata: {name: a}, spec: {area: 3, note: x}}")
	before := given.DeepCopy()
	own := object(t, "{apiVersion: example.com/v1, kind: Sail, metadata: {name: b}, spec: {cloth: x}}")
	got, err := v["v1"].Convert(t.Context(), []api.Object{given, own})
	if err != nil {
		t.Fatal(err)
	}
	want := object(t, "{apiVersion: example.com/v1, kind: Sail, metadata: {name: a}, spec: {area: 3}}")
	if !reflect.DeepEqual(got[0], api.Object(want)) || got[1] != api.Object(own) || !reflect.DeepEqual(given, before) {
		t.Errorf("%v\nwant %v", got[0], want)
	}
	for _, foreign := range []string{"example.com/v9", "other.example/v1"} {
		if _, err := v["v1"].Convert(t.Context(), []api.Object{object(t, "{apiVersion: "+foreign+", kind: Sail}")}); err == nil || !strings.Contains(err.Error(), "invalid group/version: "+foreign) {
			t.Errorf("%s: %v", foreign, err)
		}
	}
}

// converter is a Converter that says what it is asked.
type converter struct {
	asked []string
	fail  error
}

func (c *converter) Convert(_ context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, u := range objs {
		c.asked = append(c.asked, u.GetName()+" to "+to.Version)
		u = u.DeepCopy()
		u.SetAPIVersion(to.String())
		u.Object["invented"] = true
		out = append(out, u)
	}
	return out, c.fail
}

// A converter is asked once for all objects of other versions, and what it invents is pruned.
func TestConversionByAnother(t *testing.T) {
	c := &converter{}
	v := declared(t, definitionOf(t, sails), c)
	of := func(version, name string) api.Object {
		return object(t, "{apiVersion: example.com/"+version+", kind: Sail, metadata: {name: "+name+"}}")
	}
	got, err := v["v2"].Convert(t.Context(), []api.Object{of("v1", "a"), of("v2", "b"), of("v1alpha1", "c")})
	if err != nil || !reflect.DeepEqual(c.asked, []string{"a to v2", "c to v2"}) {
		t.Fatalf("asked %v; %v", c.asked, err)
	}
	for i, name := range []string{"a", "b", "c"} {
		u := got[i].(*unstructured.Unstructured)
		if u.GetName() != name || u.GetAPIVersion() != "example.com/v2" || u.Object["invented"] != nil {
			t.Errorf("%v", u)
		}
	}
	c.fail = errors.New("no")
	if _, err := v["v2"].Convert(t.Context(), []api.Object{of("v1", "a")}); err != c.fail {
		t.Errorf("%v", err)
	}
}
