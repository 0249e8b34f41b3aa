package server_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

var boatsV1 = schema.GroupVersionResource{Group: "harbour.example", Version: "v1", Resource: "boats"}

// boats are a resource as a definition makes one: stored in v1, and served in v1beta1, too, where spec.oars was called spec.rowers.
func boats() (v1, beta *api.Resource) {
	declare := func(version, oars string, stored *api.Resource) *api.Resource {
		path := []string{"spec", oars}
		number := func(o api.Object, path ...string) int32 {
			n, _, _ := unstructured.NestedInt64(o.(*unstructured.Unstructured).Object, path...)
			return int32(n)
		}
		r := api.Resource{
			GroupVersionKind: schema.GroupVersionKind{Group: boatsV1.Group, Version: version, Kind: "Boat"},
			Plural:           "boats", Singular: "boat", Namespaced: true, Prefix: "harbour.example/boats", Status: true,
			Scale: &api.Scale{
				Get: func(o api.Object) (int32, int32, string, error) {
					return number(o, path...), number(o, "status", "oars"), "", nil
				},
				Set: func(o api.Object, n int32) {
					_ = unstructured.SetNestedField(o.(*unstructured.Unstructured).Object, int64(n), path...)
				},
			},
			Fields: func(o api.Object) fields.Set {
				return fields.Set{strings.Join(path, "."): fmt.Sprint(number(o, path...))}
			},
			SelectableFields: []string{strings.Join(path, ".")},
			Validate: func(o api.Object) (errs field.ErrorList) {
				if number(o, path...) < 0 {
					errs = append(errs, field.Invalid(field.NewPath("spec", oars), number(o, path...), "must not be negative"))
				}
				return errs
			},
			Default: func(o api.Object) {
				if _, has, _ := unstructured.NestedFieldNoCopy(o.(*unstructured.Unstructured).Object, path...); !has {
					_ = unstructured.SetNestedField(o.(*unstructured.Unstructured).Object, int64(2), path...)
				}
			},
			Dynamic: api.Dynamic{
				Stored:  stored,
				Columns: []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name"}, {Name: strings.ToUpper(oars[:1]) + oars[1:], Type: "integer"}},
				Cells:   func(o api.Object) []any { return []any{o.GetName(), number(o, path...)} },
				Receive: func(o api.Object) (unknown []string, err error) {
					spec, _, err := unstructured.NestedMap(o.(*unstructured.Unstructured).Object, "spec")
					if err != nil {
						return nil, apierrors.NewBadRequest(err.Error())
					}
					for name := range spec {
						if name != oars && name != "name" {
							unknown = append(unknown, fmt.Sprintf("unknown field %q", "spec."+name))
							delete(spec, name)
						}
					}
					if len(unknown) > 0 {
						o.(*unstructured.Unstructured).Object["spec"] = spec
					}
					return unknown, nil
				},
			},
		}
		r.Convert = func(_ context.Context, objs []api.Object) ([]api.Object, error) {
			out := make([]api.Object, len(objs))
			for i, o := range objs {
				u := o.DeepCopyObject().(*unstructured.Unstructured)
				u.SetGroupVersionKind(r.GroupVersionKind)
				spec, _, _ := unstructured.NestedMap(u.Object, "spec")
				if spec["name"] == "unconvertible" {
					return nil, errors.New("conversion failed")
				}
				for _, other := range []string{"oars", "rowers"} {
					if n, has := spec[other]; has && other != oars {
						delete(spec, other)
						spec[oars] = n
					}
				}
				u.Object["spec"] = spec
				out[i] = u
			}
			return out, nil
		}
		return api.Custom(r)
	}
	v1 = declare("v1", "oars", nil)
	return v1, declare("v1beta1", "rowers", v1)
}

func boat(version, name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": boatsV1.Group + "/" + version, "kind": "Boat",
		"metadata": map[string]any{"name": name, "namespace": "default"}, "spec": maps.Clone(spec),
	}}
}

// A resource of unstructured objects that joins at run time is created, read, listed, watched, patched in all ways, scaled and deleted by the dynamic
// client, in each of its versions; it leaves and comes back.
func TestCustomResource(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	v1, beta := boats()
	if err := f.registry.Serve(ctx, v1, beta); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range formats(f) {
		t.Run(name, func(t *testing.T) {
			dyn, err := dynamic.NewForConfig(cfg)
			if err != nil {
				t.Fatal(err)
			}
			c := dyn.Resource(boatsV1).Namespace("default")
			b := dyn.Resource(beta.GroupVersionResource()).Namespace("default")
			boatName := "b-" + name
			w, err := b.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + boatName})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			made, err := b.Create(ctx, boat("v1beta1", boatName, map[string]any{"rowers": int64(4)}), metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if made.GetGeneration() != 1 || made.GetUID() == "" || made.GetAPIVersion() != "harbour.example/v1beta1" || made.GetResourceVersion() == "" {
				t.Errorf("made: %v", made)
			}
			oars := func(u *unstructured.Unstructured, err error, want int64) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				if n, _, _ := unstructured.NestedInt64(u.Object, "spec", "oars"); n != want || u.GetAPIVersion() != "harbour.example/v1" {
					t.Errorf("%v, want %d oars", u.Object, want)
				}
			}
			u, err := c.Get(ctx, boatName, metav1.GetOptions{})
			oars(u, err, 4)
			u, err = c.Patch(ctx, boatName, types.MergePatchType, []byte(`{"spec":{"oars":5}}`), metav1.PatchOptions{})
			oars(u, err, 5)
			u, err = c.Patch(ctx, boatName, types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/oars","value":6}]`), metav1.PatchOptions{})
			oars(u, err, 6)
			if u.GetGeneration() != 3 {
				t.Errorf("generation %d after two changes", u.GetGeneration())
			}
			if _, err := c.Patch(ctx, boatName, types.StrategicMergePatchType, []byte(`{}`), metav1.PatchOptions{}); !apierrors.IsUnsupportedMediaType(err) {
				t.Errorf("strategic merge: %v", err)
			}
			u, err = c.Apply(ctx, boatName, boat("v1", boatName, map[string]any{"oars": int64(8)}), metav1.ApplyOptions{FieldManager: "me", Force: true})
			oars(u, err, 8)
			if _, err := b.Apply(ctx, boatName, boat("v1beta1", boatName, map[string]any{"rowers": int64(9)}), metav1.ApplyOptions{FieldManager: "other"}); !apierrors.IsConflict(err) {
				t.Errorf("applied in the other version over the first: %v", err)
			}
			u.Object["status"] = map[string]any{"oars": int64(8)}
			u.Object["spec"] = map[string]any{"oars": int64(1)}
			u, err = c.UpdateStatus(ctx, u, metav1.UpdateOptions{})
			oars(u, err, 8)
			scale, err := b.Get(ctx, boatName, metav1.GetOptions{}, "scale")
			if err != nil || fmt.Sprint(scale.Object["spec"], scale.Object["status"]) != "map[replicas:8] map[replicas:8]" {
				t.Errorf("scale: %v %v", scale, err)
			}
			if _, err := b.Patch(ctx, boatName, types.MergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{}, "scale"); err != nil {
				t.Error(err)
			}
			list, err := b.List(ctx, metav1.ListOptions{FieldSelector: "spec.rowers=3,metadata.name=" + boatName})
			if err != nil || len(list.Items) != 1 || list.GetKind() != "BoatList" || list.Items[0].GetAPIVersion() != "harbour.example/v1beta1" {
				t.Errorf("list: %v %v", list, err)
			}
			if err := c.Delete(ctx, boatName, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			var seen []string
			for e := range w.ResultChan() {
				u := e.Object.(*unstructured.Unstructured)
				n, _, _ := unstructured.NestedInt64(u.Object, "spec", "rowers")
				seen = append(seen, fmt.Sprint(e.Type, n))
				if e.Type == watch.Deleted {
					break
				}
			}
			if got := strings.Join(seen, " "); got != "ADDED4 MODIFIED5 MODIFIED6 MODIFIED8 MODIFIED8 MODIFIED3 DELETED3" {
				t.Errorf("watched: %s", got)
			}
		})
	}
}

// What a version's declaration says is what clients see: unknown fields, rules, columns, metadata, formats.
func TestCustomResourceOnTheWire(t *testing.T) {
	f := start(t)
	v1, beta := boats()
	v1.Deprecation = "harbour.example/v1 Boat is deprecated"
	if err := f.registry.Serve(t.Context(), v1, beta); err != nil {
		t.Fatal(err)
	}
	const path = "/apis/harbour.example/v1/namespaces/default/boats"
	body := `{"apiVersion":"harbour.example/v1","kind":"Boat","metadata":{"name":"a"},"spec":{"oars":-1,"sails":1}}`
	if a := f.do("POST", path+"?fieldValidation=Strict", body); a.Code != 400 || !strings.Contains(a.Body, `strict decoding error: unknown field \"spec.sails\"`) {
		t.Errorf("strict: %d %s", a.Code, a.Body)
	}
	a := f.do("POST", path, body)
	if warnings := fmt.Sprint(a.Header.Values("Warning")); a.Code != 422 || !strings.Contains(a.Body, "spec.oars: Invalid value: -1: must not be negative") ||
		!strings.Contains(warnings, `unknown field \"spec.sails\"`) || !strings.Contains(warnings, "is deprecated") {
		t.Errorf("invalid: %d %s %s", a.Code, a.Body, warnings)
	}
	f.must("POST", path, "apiVersion: harbour.example/v1\nkind: Boat\nmetadata: {name: a, finalizers: [x/y]}\n", "Content-Type", "application/yaml")
	contains(t, f.must("GET", path+"/a", "").Body, `"spec":{"oars":2}`)
	if a := f.do("POST", path, body, "Content-Type", "application/vnd.kubernetes.protobuf"); a.Code != 415 {
		t.Errorf("protobuf was read: %d", a.Code)
	}
	if a := f.do("GET", path, "", "Accept", "application/vnd.kubernetes.protobuf"); a.Code != 406 {
		t.Errorf("protobuf was offered: %d", a.Code)
	}
	f.must("GET", path, "", "Accept", "application/vnd.kubernetes.protobuf,application/json")
	for _, tc := range [][3]string{
		{path, "application/json;as=Table;v=v1;g=meta.k8s.io", `"cells":["a",2]`},
		{path, "application/json;as=Table;v=v1;g=meta.k8s.io", `"name":"Oars"`},
		{strings.Replace(path, "v1", "v1beta1", 1), "application/json;as=Table;v=v1;g=meta.k8s.io", `"name":"Rowers"`},
		{path + "/a", "application/json;as=Table;v=v1;g=meta.k8s.io", `"cells":["a",2]`},
		{path, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", `"finalizers":["x/y"]`},
		{path + "/a", "application/yaml", "oars: 2"},
		{path, "application/yaml", "  - apiVersion: harbour.example/v1"},
	} {
		if a := f.do("GET", tc[0], "", "Accept", tc[1]); !strings.Contains(strings.ReplaceAll(a.Body, "\n- api", "\n  - api"), tc[2]) {
			t.Errorf("%s as %s: %s", tc[0], tc[1], a.Body)
		}
	}
	if a := f.do("GET", path, "", "Accept", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"); a.Code != 200 || !strings.HasPrefix(a.Body, "k8s\x00") {
		t.Errorf("metadata as protobuf: %d", a.Code)
	}
	// Marked for deletion, it keeps what it was for those who hold the former state.
	f.must("DELETE", path+"/a", "")
	contains(t, f.must("GET", path+"/a", "").Body, `"deletionTimestamp"`)
	f.must("PATCH", path+"/a", `{"metadata":{"finalizers":null}}`, "Content-Type", "application/merge-patch+json")
	if a := f.do("GET", path+"/a", ""); a.Code != http.StatusNotFound {
		t.Errorf("it was to go with its last finalizer: %d", a.Code)
	}
}

// Watches of a resource that leaves end without an error; when it comes back, its objects are there. Where another declaration takes its place, watches go
// on if it reads the objects alike.
func TestCustomResourceLeaves(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	v1, beta := boats()
	if err := f.registry.Serve(ctx, v1, beta); err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	c := dyn.Resource(boatsV1).Namespace("default")
	if _, err := c.Create(ctx, boat("v1", "a", map[string]any{"oars": int64(1)}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() watch.Event { return <-w.ResultChan() }
	if e := next(); e.Type != watch.Added {
		t.Fatalf("%+v", e)
	}
	v2, beta2 := boats()
	if err := f.registry.Exchange(ctx, []*api.Resource{v1, beta}, []*api.Resource{v2, beta2}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"oars":3}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Type != watch.Modified {
		t.Fatalf("after another declaration took the place of the first: %+v", e)
	}
	v3, beta3 := boats()
	v3.Reading = "anew"
	if err := f.registry.Exchange(ctx, []*api.Resource{v2, beta2}, []*api.Resource{v3, beta3}); err != nil {
		t.Fatal(err)
	}
	if e, more := <-w.ResultChan(); more {
		t.Errorf("a watch of a table that is read anew did not end: %+v", e)
	}
	if w, err = c.Watch(ctx, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Type != watch.Added {
		t.Fatalf("%+v", e)
	}
	f.registry.Retire(v3, beta3)
	if e, more := <-w.ResultChan(); more {
		t.Errorf("a watch of a resource that left: %+v", e)
	}
	if _, err := c.List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
	if err := f.registry.Serve(ctx, v3, beta3); err != nil {
		t.Fatal(err)
	}
	if list, err := c.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 1 {
		t.Errorf("it came back with %v, %v", list, err)
	}
}
