package controlplane_test

import (
	"context"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/store"
)

// Of two servers only one runs the controllers. What a definition that was made through either defines is served by both once it is
// established, and by neither once it has gone.
func TestDefinitionsOfTwoServers(t *testing.T) {
	backend := store.NewMem()
	several := func(c *controlplane.Config) { c.Several = func() bool { return true } }
	leader := openPlain(t, backend, several)
	other := openPlain(t, backend, several, func(c *controlplane.Config) {
		c.Lead = func(ctx context.Context, _ func(context.Context) error) error { <-ctx.Done(); return nil }
	})
	for through, p := range map[string]*plain{"the leader": leader, "the other": other} {
		p.define(widgets)
		for at, q := range map[string]*plain{"the leader": leader, "the other": other} {
			if code, out := q.do("GET", widgetsPath, ""); code != 200 {
				t.Errorf("established through %s, and %s answers %d %s", through, at, code, out)
			}
		}
		p.must(201, "", "POST", widgetsPath, widget)
		leader.must(200, `"size":1`, "GET", widgetsPath+"/a", "")
		other.must(200, `"size":1`, "GET", widgetsPath+"/a", "")
		p.must(200, "", "DELETE", definitionsPath+"/widgets.example.com", "")
		leader.await(404, "", definitionsPath+"/widgets.example.com")
		began := time.Now()
		leader.await(404, "could not find the requested resource", widgetsPath)
		other.await(404, "could not find the requested resource", widgetsPath)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("deleted through %s, and still served %v later", through, took)
		}
	}
}

// A definition in the store whose schema no longer compiles does not keep the server from starting, nor others from being served; its objects can be
// read and deleted, and so can it.
func TestBrokenDefinitionInTheStore(t *testing.T) {
	backend := store.NewMem()
	p := openPlain(t, backend)
	p.define(widgets)
	p.define(versions)
	p.must(201, "", "POST", widgetsPath, widget)
	p.end()

	res := api.CustomResourceDefinitions
	key := res.Table() + res.Key(api.Key{Name: "widgets.example.com"})
	breakSchema(t, backend, key)

	p = openPlain(t, backend)
	p.must(200, `"kind":"GearList"`, "GET", "/apis/example.com/v1/gears", "")
	p.must(200, `"size":1`, "GET", widgetsPath+"/a", "")
	p.must(500, "could not properly serve the CR schema", "POST", widgetsPath, strings.Replace(widget, "name: a", "name: b", 1))
	p.must(200, "com.example.v1.Widget", "GET", "/openapi/v2", "")
	p.must(200, "", "DELETE", widgetsPath+"/a", "")
	p.must(200, "", "DELETE", definitionsPath+"/widgets.example.com", "")
	p.await(404, "", definitionsPath+"/widgets.example.com")
}

// breakSchema changes what a backend has of a definition so that its schemas are not structural.
func breakSchema(t *testing.T, backend store.Backend, key string) {
	t.Helper()
	var found []store.KV
	if _, err := backend.Load(t.Context(), key, func(kv store.KV) error { found = append(found, kv); return nil }); err != nil || len(found) != 1 {
		t.Fatalf("%d objects are at %s; %v", len(found), key, err)
	}
	obj, err := api.CustomResourceDefinitions.Decode(found[0].Value)
	if err == nil {
		obj, err = api.CustomResourceDefinitions.Whole(obj)
	}
	if err != nil {
		t.Fatal(err)
	}
	def := obj.(*apiextensionsv1.CustomResourceDefinition)
	def.SetGroupVersionKind(api.CustomResourceDefinitions.GroupVersionKind)
	def.Generation++
	def.ManagedFields = []metav1.ManagedFieldsEntry{}
	def.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"] = apiextensionsv1.JSONSchemaProps{
		Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{JSONSchemas: []apiextensionsv1.JSONSchemaProps{{Type: "string"}}},
	}
	b, err := api.CustomResourceDefinitions.Encode(def)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backend.Commit(t.Context(), []store.Op{{Key: key, Value: b, If: found[0].Rev}}); err != nil {
		t.Fatal(err)
	}
}
