package server_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/api"
)

// Discovery and OpenAPI tell of resources from the moment at which they are served, of each version in its place, and no longer when they have left.
// The documents of group-versions that stayed as they were keep their hashes.
func TestCustomResourcesAreDiscovered(t *testing.T) {
	f := start(t)
	index := func() map[string]struct{ ServerRelativeURL string } {
		var out struct {
			Paths map[string]struct{ ServerRelativeURL string }
		}
		if err := json.Unmarshal([]byte(f.must("GET", "/openapi/v3", "").Body), &out); err != nil {
			t.Fatal(err)
		}
		return out.Paths
	}
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	tag := func() string { return f.must("GET", "/apis", "", "Accept", aggregated).Header.Get("ETag") }
	before, tagBefore := index(), tag()
	v1, beta := boats()
	v1.Edition, beta.Edition = "one", "one"
	v1.Schema = func(v3 bool) (map[string]any, error) {
		return map[string]any{"description": "A boat.", "properties": map[string]any{"spec": map[string]any{"type": "object", "nullable": v3}}}, nil
	}
	if err := f.registry.Serve(t.Context(), v1, beta); err != nil {
		t.Fatal(err)
	}
	if tag() == tagBefore {
		t.Error("discovery is another, its tag the same")
	}
	contains(t, f.must("GET", "/apis/harbour.example", "").Body, `"preferredVersion":{"groupVersion":"harbour.example/v1","version":"v1"}`)
	contains(t, f.must("GET", "/apis/harbour.example/v1beta1", "").Body, `"name":"boats/scale"`)
	contains(t, f.must("GET", "/apis", "", "Accept", aggregated).Body, `"resource":"boats"`)
	with := index()
	at := with["apis/harbour.example/v1"].ServerRelativeURL
	doc := f.must("GET", at, "", "Accept-Encoding", "identity").Body
	for _, want := range []string{`"example.harbour.v1.Boat":{"description":"A boat."`, `"example.harbour.v1.BoatList"`, `"nullable":true`, `"group":"harbour.example"`,
		`"/apis/harbour.example/v1/namespaces/{namespace}/boats/{name}/status"`, `"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"`} {
		contains(t, doc, want)
	}
	if strings.Contains(doc, "strategic-merge") {
		t.Error("strategic merge patches are offered")
	}
	contains(t, f.must("GET", "/openapi/v2", "", "Accept-Encoding", "identity").Body, `"example.harbour.v1beta1.Boat"`)
	contains(t, f.must("GET", "/metrics", "").Body, `apiserver_resource_objects{group="harbour.example",resource="boats"} 0`)
	v2, beta2 := boats()
	v2.Edition, beta2.Edition = "two", "one"
	if err := f.registry.Exchange(t.Context(), []*api.Resource{v1, beta}, []*api.Resource{v2, beta2}); err != nil {
		t.Fatal(err)
	}
	again := index()
	for path, changed := range map[string]bool{"apis/harbour.example/v1": true, "apis/harbour.example/v1beta1": false, "api/v1": false} {
		if (again[path] != with[path]) != changed {
			t.Errorf("%s: %v, was %v", path, again[path], with[path])
		}
	}
	f.registry.Retire(v2, beta2)
	if _, there := index()["apis/harbour.example/v1"]; there || len(index()) != len(before) || tag() != tagBefore {
		t.Error("they have left, and are told of")
	}
}
