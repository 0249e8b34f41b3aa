package server_test

import "testing"

// A pod can be bound by posting to the collection of bindings, as by the pod's own subresource.
func TestBindings(t *testing.T) {
	f := start(t)
	f.must("POST", "/api/v1/nodes", `{"metadata":{"name":"n1"}}`)
	f.must("POST", "/api/v1/namespaces/default/pods", pod)
	const path = "/api/v1/namespaces/default/bindings"
	for body, code := range map[string]int{
		`{"target":{"name":"n1"}}`:                                                   400,
		`{"metadata":{"name":"none"},"target":{"name":"n1"}}`:                        404,
		`{"metadata":{"name":"a"},"target":{"kind":"Pod","name":"n1"}}`:              422,
		`{"metadata":{"name":"a","namespace":"kube-system"},"target":{"name":"n1"}}`: 400,
	} {
		if a := f.do("POST", path, body); a.Code != code {
			t.Errorf("%s: %d %s, want %d", body, a.Code, a.Body, code)
		}
	}
	if a := f.do("POST", path, `{"metadata":{"name":"a"},"target":{"kind":"Node","name":"n1"}}`); a.Code != 201 {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	contains(t, f.must("GET", "/api/v1/namespaces/default/pods/a", "").Body, `"nodeName":"n1"`)
	if a := f.do("POST", path, `{"metadata":{"name":"a"},"target":{"name":"n1"}}`); a.Code != 409 {
		t.Errorf("bound twice: %d %s", a.Code, a.Body)
	}
	contains(t, f.must("GET", "/api/v1", "").Body, `{"name":"bindings","singularName":"binding","namespaced":true,"kind":"Binding","verbs":["create"]}`)
}
