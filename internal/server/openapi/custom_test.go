package openapi

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// publish returns the schemas of a kind and of its lists, as a document with them says.
func publish(t *testing.T, v3 bool, r api.Resource) (of, list object) {
	t.Helper()
	r.GroupVersionKind, r.Plural = schema.GroupVersionKind{Group: "harbour.example", Version: "v1", Kind: "Boat"}, "boats"
	d := New([]*api.Resource{api.Custom(r)}, nil, "v1.37.2")
	doc, err := d.V2()
	parse := (*Document).ProtobufV2
	if v3 {
		doc, _, err = d.V3(r.GroupVersion())
		parse = (*Document).ProtobufV3
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(doc); err != nil {
		t.Fatalf("clients cannot read the document: %v", err)
	}
	b, err := doc.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Definitions map[string]object
		Components  struct{ Schemas map[string]object }
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if v3 {
		got.Definitions = got.Components.Schemas
	}
	return got.Definitions["example.harbour.v1.Boat"], got.Definitions["example.harbour.v1.BoatList"]
}

func names(s object, of string) (out []string) {
	properties, _ := s[of].(object)
	for _, name := range []string{"apiVersion", "kind", "metadata", "spec"} {
		if _, has := properties[name]; has {
			out = append(out, name)
		}
	}
	return out
}

// A kind whose objects may hold anything names no fields: kubectl would refuse all others.
func TestAnyObjectIsValid(t *testing.T) {
	for _, v3 := range []bool{false, true} {
		of, list := publish(t, v3, api.Resource{Dynamic: api.Dynamic{Schema: func(bool) (map[string]any, error) { return nil, nil }}})
		if of["type"] != "object" || of["properties"] != nil || of["x-kubernetes-group-version-kind"] == nil {
			t.Errorf("v3 %v: %v", v3, of)
		}
		if got := names(list, "properties"); len(got) != 3 {
			t.Errorf("v3 %v: lists have %v", v3, got)
		}
	}
}

// A schema that cannot be published is in nobody's way.
func TestSchemaThatCannotBePublished(t *testing.T) {
	of, _ := publish(t, true, api.Resource{Dynamic: api.Dynamic{Schema: func(bool) (map[string]any, error) { return nil, errors.New("broken") }}})
	if of["description"] != "The schema of this kind cannot be published: broken" || of["type"] != "object" {
		t.Errorf("%v", of)
	}
}

// Embedded objects have what all objects have, but in version 2 where they may hold anything.
func TestEmbeddedObjects(t *testing.T) {
	embedded := func(more object) object {
		s := object{"type": "object", "x-kubernetes-embedded-resource": true, "required": []any{"spec", "kind"}, "properties": object{"spec": object{"type": "object"}}}
		for k, v := range more {
			s[k] = v
		}
		return s
	}
	declared := object{"type": "object", "properties": object{
		"plain": embedded(nil),
		"list":  object{"type": "array", "items": embedded(nil)},
		"map":   object{"type": "object", "additionalProperties": embedded(nil)},
		"open":  embedded(object{"x-kubernetes-preserve-unknown-fields": true}),
	}}
	before, _ := json.Marshal(declared)
	for _, v3 := range []bool{false, true} {
		of, _ := publish(t, v3, api.Resource{Dynamic: api.Dynamic{Schema: func(bool) (map[string]any, error) { return declared, nil }}})
		if got := names(of, "properties"); !reflect.DeepEqual(got, []string{"apiVersion", "kind", "metadata"}) {
			t.Errorf("v3 %v: the kind has %v", v3, got)
		}
		p := of["properties"].(object)
		for where, s := range map[string]object{"plain": p["plain"].(object), "list": p["list"].(object)["items"].(object),
			"map": p["map"].(object)["additionalProperties"].(object), "open": p["open"].(object)} {
			want, required := []string{"apiVersion", "kind", "metadata", "spec"}, 3
			if where == "open" && !v3 {
				want, required = []string{"spec"}, 2
			}
			if got := names(s, "properties"); !reflect.DeepEqual(got, want) || len(s["required"].([]any)) != required {
				t.Errorf("v3 %v, %s: has %v, requires %v; want %v", v3, where, got, s["required"], want)
			}
		}
	}
	if after, _ := json.Marshal(declared); string(after) != string(before) {
		t.Error("the declared schema was changed")
	}
}

func TestSelectableFieldsArePublished(t *testing.T) {
	of, list := publish(t, true, api.Resource{SelectableFields: []string{"spec.color"}})
	want := []any{object{"fieldPath": "spec.color"}}
	if !reflect.DeepEqual(of[selectableFields], any(want)) || !reflect.DeepEqual(list[selectableFields], any(want)) {
		t.Errorf("%v %v", of[selectableFields], list[selectableFields])
	}
	if of, _ := publish(t, true, api.Resource{}); of[selectableFields] != nil || of["x-kubernetes-preserve-unknown-fields"] != true {
		t.Errorf("%v", of)
	}
}
