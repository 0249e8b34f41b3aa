package definition_test

import (
	"encoding/json"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/definition"
)

// awkward is a definition whose texts look like what JSON is put together and taken apart by.
func awkward() *apiextensionsv1.CustomResourceDefinition {
	version := func(name, description string) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{
			Name: name, Served: true, Storage: name == "v1",
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
				Type: "object", Description: description,
				Properties: map[string]apiextensionsv1.JSONSchemaProps{
					"openAPIV3Schema": {Type: "object", ID: "\x000"},
					"text":            {Type: "string", Default: &apiextensionsv1.JSON{Raw: []byte(`"a\\\"}<&>"`)}, Pattern: `^"[{}]\\$`},
					"list": {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{
						Schema: &apiextensionsv1.JSONSchemaProps{Type: "integer", Maximum: new(1.5)}}},
				},
			}},
		}
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "things.example.com", Annotations: map[string]string{
			"last": `{"openAPIV3Schema":{"id":"\u00000"}}`, "quotes": `\"openAPIV3Schema":{`,
		}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.com", Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
			version("v1", `{"openAPIV3Schema":{}} {"id":"\u00001"}`), version("v2", "other"), {Name: "v3"},
		}},
	}
}

func TestWhatIsPackedIsWholeAgain(t *testing.T) {
	def := awkward()
	if err := definition.Pack(def); err != nil {
		t.Fatal(err)
	}
	for _, v := range def.Spec.Versions[:2] {
		if !definition.IsPacked(v.Schema.OpenAPIV3Schema) {
			t.Errorf("the schema of %s is not packed", v.Name)
		}
	}
	whole, err := definition.Whole(def)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := json.Marshal(awkward()); err != nil || string(got) != string(want) {
		t.Errorf("%v: unpacked it is\n%s\nwant\n%s", err, got, want)
	}
	if !definition.IsPacked(def.Spec.Versions[0].Schema.OpenAPIV3Schema) {
		t.Error("unpacking has changed the packed definition")
	}
}

func TestJSONIsThatOfTheWholeDefinition(t *testing.T) {
	want, err := json.Marshal(awkward())
	if err != nil {
		t.Fatal(err)
	}
	packed := awkward()
	if err := definition.Pack(packed); err != nil {
		t.Fatal(err)
	}
	for name, def := range map[string]*apiextensionsv1.CustomResourceDefinition{"packed": packed, "whole": awkward()} {
		got, err := definition.JSON(def)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, want)
		}
	}
}

func TestSplitAndJoinUndoEachOther(t *testing.T) {
	text, err := json.Marshal(awkward())
	if err != nil {
		t.Fatal(err)
	}
	bare, schemas, err := definition.Split(text)
	if err != nil || len(schemas) != 2 {
		t.Fatalf("%d schemas, want 2; %v", len(schemas), err)
	}
	def := &apiextensionsv1.CustomResourceDefinition{}
	if err := json.Unmarshal(bare, def); err != nil {
		t.Fatalf("%v\n%s", err, bare)
	}
	if err := definition.Join(def, schemas); err != nil {
		t.Fatal(err)
	}
	got, err := definition.JSON(def)
	if err != nil || string(got) != string(text) {
		t.Errorf("%v\n%s\nwant\n%s", err, got, text)
	}
	packed := awkward()
	if err := definition.Pack(packed); err != nil {
		t.Fatal(err)
	}
	if a, b := def.Spec.Versions[0].Schema.OpenAPIV3Schema.Title, packed.Spec.Versions[0].Schema.OpenAPIV3Schema.Title; a != b {
		t.Errorf("what was read from JSON has the name %s, what was packed has %s", a, b)
	}
	for _, cut := range []int{len(text) / 2, len(text) * 3 / 4} {
		if _, _, err := definition.Split(text[:cut]); err == nil && strings.Count(string(text[:cut]), "openAPIV3Schema") > 3 {
			t.Errorf("half of a definition was taken apart: %s", text[:cut])
		}
	}
}

func TestOrderMakesNoOtherSchema(t *testing.T) {
	was, def := awkward(), awkward()
	for i, text := range []string{`{"type":"object","properties":{"a":{"type":"string"}}}`, `{"properties":{"a":{"type":"string"}},"type":"object"}`} {
		d := []*apiextensionsv1.CustomResourceDefinition{was, def}[i]
		d.Spec.Versions = d.Spec.Versions[:1]
		d.Spec.Versions[0].Schema.OpenAPIV3Schema = &apiextensionsv1.JSONSchemaProps{ID: "\x000"}
		if err := definition.Join(d, [][]byte{[]byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	name := func(d *apiextensionsv1.CustomResourceDefinition) string {
		return d.Spec.Versions[0].Schema.OpenAPIV3Schema.Title
	}
	if name(was) == name(def) {
		t.Fatal("this test needs two names of one schema")
	}
	definition.KeepSame(def, was)
	if name(was) != name(def) {
		t.Error("a schema whose fields stand in another order is taken for another one")
	}
	other := awkward()
	if definition.KeepSame(other, was); name(other) == name(was) {
		t.Error("another schema is taken for the same")
	}
}
