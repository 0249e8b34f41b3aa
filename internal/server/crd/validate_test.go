package crd

import (
	"reflect"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// masts have one version with something of everything that is checked.
const masts = `
metadata: {name: masts.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: masts, singular: mast, kind: Mast, listKind: MastList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    selectableFields: [{jsonPath: .spec.wood}, {jsonPath: .spec.height}]
    additionalPrinterColumns:
    - {name: Wood, type: string, jsonPath: .spec.wood}
    - {name: Height, type: integer, jsonPath: .spec.height, priority: 1, description: how high}
    - {name: Weight, type: number, jsonPath: .spec.weight}
    - {name: Up, type: boolean, jsonPath: .status.up}
    - {name: Since, type: date, jsonPath: .status.since}
    - {name: All, type: string, jsonPath: ".spec.yards[*].name"}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: "!has(self.height) || self.height <= 40", message: too high}
            - {rule: "self.wood == oldSelf.wood", message: wood does not change}
            properties:
              wood: {type: string, maxLength: 5, default: oak}
              height: {type: integer, minimum: 1}
              weight: {type: number}
              replicas: {type: integer}
              yards:
                type: array
                maxItems: 4
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string, pattern: "^[a-z]+$"}}}
              template: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            properties: {up: {type: boolean}, since: {type: string}, replicas: {type: integer}, selector: {type: string}}
`

func mast(t *testing.T, spec string) api.Object {
	t.Helper()
	return object(t, "{apiVersion: example.com/v1, kind: Mast, metadata: {name: a, namespace: ns, resourceVersion: '1'}, "+spec+"}")
}

func TestNewObjectsAreChecked(t *testing.T) {
	r := declared(t, definitionOf(t, masts), nil)["v1"]
	for spec, want := range map[string]string{
		"spec: {wood: pine, height: 3}":                        "",
		"spec: {wood: mahogany}":                               "spec.wood: Too long: may not be more than 5 bytes",
		"spec: {wood: oak, height: 41}":                        "spec: Invalid value: too high",
		"spec: {wood: oak, height: 0}":                         "spec.height: Invalid value: 0: spec.height in body should be greater than or equal to 1",
		"spec: {wood: oak, yards: [{name: a}, {name: a}]}":     `spec.yards[1]: Duplicate value: {"name":"a"}`,
		"spec: {wood: oak, yards: [{name: A}]}":                "spec.yards[0].name: Invalid value: \"A\": spec.yards[0].name in body should match '^[a-z]+$'",
		"spec: {wood: oak, yards: [{}]}":                       "spec.yards[0].name: Required value",
		"spec: {wood: oak, replicas: -1}":                      ".spec.replicas: Invalid value: -1: should be a non-negative integer",
		"spec: {wood: oak, replicas: 2147483648}":              ".spec.replicas: Invalid value: 2147483648: should be less than or equal to 2147483647",
		"spec: {wood: oak, template: {metadata: {name: 'A'}}}": "spec.template.apiVersion: Required value",
		"spec: {wood: oak, height: tall}":                      "some validation rules were not checked because the object was invalid",
		"spec: {wood: oak}, status: {replicas: -1}":            ".status.replicas: Invalid value: -1",
		"spec: {wood: oak}, status: {selector: 7}":             ".status.selector: Invalid value",
	} {
		errs := r.Validate(mast(t, spec)).ToAggregate()
		if want == "" && errs == nil {
			continue
		}
		if errs == nil || want == "" || !strings.Contains(errs.Error(), want) {
			t.Errorf("%s: %v\nwant %q", spec, errs, want)
		}
	}
}

// What was as wrong before is let through, but not by rules about changes (KEP-4008).
func TestChangedObjectsAreChecked(t *testing.T) {
	r := declared(t, definitionOf(t, masts), nil)["v1"]
	for _, c := range []struct{ old, obj, sub, want string }{
		{"spec: {wood: mahogany}", "spec: {wood: mahogany, weight: 2}", "", ""},
		{"spec: {wood: mahogany}", "spec: {wood: mahoganies}", "", "Too long"},
		{"spec: {wood: oak, height: 50}", "spec: {wood: oak, height: 50}", "", ""},
		{"spec: {wood: oak, height: 50}", "spec: {wood: oak, height: 51}", "", "too high"},
		{"spec: {wood: oak}", "spec: {wood: pine}", "", "wood does not change"},
		{"spec: {wood: oak, yards: [{name: A}]}", "spec: {wood: oak, yards: [{name: b}, {name: A}]}", "", ""},
		{"spec: {wood: oak, yards: [{name: A}]}", "spec: {wood: oak, yards: [{name: B}]}", "", "should match"},
		{"spec: {wood: oak, yards: [{name: a}, {name: a}]}", "spec: {wood: oak, yards: [{name: a}, {name: a}], weight: 1}", "", ""},
		{"spec: {wood: oak}", "spec: {wood: oak, yards: [{name: a}, {name: a}]}", "", "Duplicate value"},
		{"spec: {wood: mahogany}", "spec: {wood: mahogany}, status: {up: true}", "status", ""},
		{"spec: {wood: oak}", "spec: {wood: oak}, status: {up: 1}", "status", "status.up: Invalid value"},
		{"spec: {wood: oak}, status: {up: 1}", "spec: {wood: oak}, status: {up: 1, since: x}", "status", ""},
		{"spec: {wood: oak}", "spec: {wood: oak}, status: {replicas: -1}", "status", ".status.replicas"},
	} {
		errs := r.ValidateUpdate(mast(t, c.obj), mast(t, c.old), c.sub).ToAggregate()
		if (errs == nil) != (c.want == "") || errs != nil && !strings.Contains(errs.Error(), c.want) {
			t.Errorf("%s after %s: %v\nwant %q", c.obj, c.old, errs, c.want)
		}
	}
}

func TestWhatASchemaDoesNotHaveIsDropped(t *testing.T) {
	r := declared(t, definitionOf(t, masts), nil)["v1"]
	obj := object(t, `{apiVersion: example.com/v1, kind: Mast, metadata: {name: a, potato: 1}, spec: {height: 3, potato: 1, yards: [{name: a, potato: 1}],
		template: {apiVersion: v1, kind: Pod, metadata: {name: x, potato: 1}, any: 1}}, potato: {}}`)
	unknown, err := r.Receive(obj)
	if err != nil {
		t.Fatal(err)
	}
	r.Default(obj)
	want := object(t, `{apiVersion: example.com/v1, kind: Mast, metadata: {name: a}, spec: {wood: oak, height: 3, yards: [{name: a}],
		template: {apiVersion: v1, kind: Pod, metadata: {name: x}, any: 1}}}`)
	if !reflect.DeepEqual(obj, want) {
		t.Errorf("%v\nwant %v", obj, want)
	}
	wanted := []string{`unknown field "metadata.potato"`, `unknown field "potato"`, `unknown field "spec.potato"`, `unknown field "spec.yards[0].potato"`, `unknown field "spec.template.metadata.potato"`}
	if !reflect.DeepEqual(unknown, wanted) {
		t.Errorf("dropped %q, want %q", unknown, wanted)
	}
	if _, err := r.Receive(object(t, "{apiVersion: example.com/v1, kind: Mast, metadata: {name: a, labels: 7}}")); err == nil {
		t.Error("labels that are a number were taken")
	}
}

func TestColumnsAndFields(t *testing.T) {
	r := declared(t, definitionOf(t, masts), nil)["v1"]
	var names []string
	for _, c := range r.Columns {
		names = append(names, c.Name)
	}
	if want := []string{"Name", "Wood", "Height", "Weight", "Up", "Since", "All"}; !reflect.DeepEqual(names, want) {
		t.Errorf("columns %v, want %v", names, want)
	}
	for spec, want := range map[string][]any{
		"spec: {wood: oak, height: 3, weight: 2, yards: [{name: a}, {name: b}]}, status: {up: true, since: never}": {"a", "oak", int64(3), 2.0, true, "<invalid>", "a"},
		"spec: {wood: 4, height: 3.9, weight: 2.5, yards: []}, status: {up: 'yes', since: 3}":                      {"a", "4", int64(3), 2.5, nil, nil, nil},
		"spec: {wood: {a: 1}}": {"a", `{"a":1}`, nil, nil, nil, nil, nil},
	} {
		if got := r.Cells(mast(t, spec)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, want %#v", spec, got, want)
		}
	}
	for spec, want := range map[string]map[string]string{
		"spec: {wood: oak, height: 3}": {"spec.wood": "oak", "spec.height": "3"},
		"spec: {wood: null}":           {"spec.wood": "", "spec.height": ""},
		"spec: 7":                      {"spec.wood": "", "spec.height": ""},
	} {
		if got := map[string]string(r.Fields(mast(t, spec))); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", spec, got, want)
		}
	}
}

func TestScale(t *testing.T) {
	scale := declared(t, definitionOf(t, masts), nil)["v1"].Scale
	for _, c := range []struct {
		spec     string
		of, has  int32
		selector string
		err      string
	}{
		{"spec: {replicas: 3}, status: {replicas: 2, selector: a=b}", 3, 2, "a=b", ""},
		{"spec: {}, status: {replicas: 2, selector: a=b}", 0, 2, "a=b", `the spec replicas field ".spec.replicas" does not exist`},
		{"spec: {replicas: many}", 0, 0, "", "accessor error"},
		{"spec: {replicas: 1}, status: {selector: [a]}", 0, 0, "", "accessor error"},
		{"spec: {replicas: 4294967296}", 0, 0, "", "out of range"},
	} {
		of, has, selector, err := scale.Get(mast(t, c.spec))
		if of != c.of || has != c.has || selector != c.selector || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %d %d %q %v", c.spec, of, has, selector, err)
		}
	}
	for _, spec := range []string{"spec: {replicas: 3}", "metadata: {}", "spec: many"} {
		obj := mast(t, spec)
		scale.Set(obj, 5)
		if of, _, _, err := scale.Get(obj); of != 5 || err != nil {
			t.Errorf("%s: %d %v", spec, of, err)
		}
	}
}

func TestFinalizerWarnings(t *testing.T) {
	with := func(finalizers ...string) api.Object {
		u := object(t, "{apiVersion: example.com/v1, kind: Mast, metadata: {name: a}}")
		u.SetFinalizers(finalizers)
		return u
	}
	const prefer = ": prefer a domain-qualified finalizer name%s to avoid accidental conflicts with other finalizer writers"
	for _, c := range []struct {
		old, obj api.Object
		want     []string
	}{
		{nil, with("example.com/a", "foregroundDeletion", "orphan", "kubernetes"), nil},
		{nil, with("a"), []string{`metadata.finalizers: "a"` + strings.Replace(prefer, "%s", "", 1)}},
		{nil, with("example.com"), []string{`metadata.finalizers: "example.com"` + strings.Replace(prefer, "%s", " including a path (/)", 1)}},
		{with("a"), with("a", "example.com/b"), nil},
	} {
		if got := finalizerWarnings(c.obj, c.old); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %q, want %q", c.obj.GetFinalizers(), got, c.want)
		}
	}
}

// Schemas that say the same are compiled once, and freed when nobody has them any longer.
func TestFormsAreShared(t *testing.T) {
	var forms Forms
	props := func(typ string) *apiextensionsv1.CustomResourceValidation {
		return &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: typ}}
	}
	a, b, c := forms.find(props("object"), false), forms.find(props("object"), false), forms.find(props("object"), true)
	if a != b || a == c || forms.find(nil, false) == forms.find(&apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{}}, false) {
		t.Error("forms are not told apart by what their schemas say")
	}
}

// A schema that no longer compiles is an answer to who writes; what is stored is read as it is.
func TestBrokenSchema(t *testing.T) {
	def := definitionOf(t, sails)
	def.Spec.Versions[2].Schema.OpenAPIV3Schema.Properties["spec"] = apiextensionsv1.JSONSchemaProps{Type: "object",
		Items: &apiextensionsv1.JSONSchemaPropsOrArray{JSONSchemas: []apiextensionsv1.JSONSchemaProps{{Type: "string"}}}}
	r := declared(t, def, nil)["v2"]
	const stored = `{"apiVersion":"example.com/v2","kind":"Sail","metadata":{"name":"a"},"spec":{"any":1}}`
	obj, err := r.Decode([]byte(stored))
	if err != nil || obj.GetName() != "a" {
		t.Fatalf("%v %v", obj, err)
	}
	if _, err := r.Receive(obj); err == nil || !strings.Contains(err.Error(), "the server could not properly serve the CR schema") {
		t.Errorf("%v", err)
	}
	if errs := r.Validate(obj); len(errs) != 1 {
		t.Errorf("%v", errs)
	}
	if errs := r.ValidateUpdate(obj, obj, ""); len(errs) != 1 {
		t.Errorf("%v", errs)
	}
	if s, err := r.Schema(true); s != nil || err != nil {
		t.Errorf("a broken schema is published: %v %v", s, err)
	}
	if _, err := r.Managed(); err == nil {
		t.Error("server-side apply has a schema")
	}
	r.Default(obj)
}
