package openapi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/discovery"
)

// unstored are kinds that are served and not stored.
func unstored() []discovery.Review {
	core, authn, authz := schema.GroupVersion{Version: "v1"}, schema.GroupVersion{Group: "authentication.k8s.io", Version: "v1"}, schema.GroupVersion{Group: "authorization.k8s.io", Version: "v1"}
	return []discovery.Review{
		{GroupVersionKind: core.WithKind("ComponentStatus"), Plural: "componentstatuses", Verbs: []string{"get", "list"}},
		{GroupVersionKind: core.WithKind("Binding"), Plural: "bindings", Namespaced: true},
		{GroupVersionKind: authn.WithKind("TokenReview"), Plural: "tokenreviews"},
		{GroupVersionKind: authz.WithKind("LocalSubjectAccessReview"), Plural: "localsubjectaccessreviews", Namespaced: true},
		{GroupVersionKind: authz.WithKind("SelfSubjectAccessReview"), Plural: "selfsubjectaccessreviews"},
	}
}

// TestPathsAreUpstreams compares every operation that Knarr documents with Kubernetes' own: operationId, tags, action, kind,
// parameters, body, answers. Generated clients have their methods' names and arguments from there.
func TestPathsAreUpstreams(t *testing.T) {
	dir := upstream(t)
	d := New(api.Builtin, unstored(), "v1.37.2")
	seen := 0
	for _, gv := range d.versions {
		doc, _, err := d.V3(gv)
		if err != nil {
			t.Fatal(err)
		}
		b, err := doc.JSON()
		if err != nil {
			t.Fatal(err)
		}
		u, err := os.ReadFile(filepath.Join(dir, strings.NewReplacer("/", "__").Replace(pathOf(gv))+"_openapi.json"))
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := operations(t, b), operations(t, u)
		for at, op := range ours {
			seen++
			want, ok := theirs[at]
			if !ok {
				t.Errorf("Kubernetes has no %s", at)
				continue
			}
			for what, got := range op {
				if got != want[what] {
					t.Errorf("%s: %s is\n  %s, want\n  %s", at, what, got, want[what])
				}
			}
		}
		for at := range theirs {
			for _, r := range d.resources {
				if _, path, _ := strings.Cut(at, " "); served(path, r) && r.GroupVersion() == gv && ours[at] == nil {
					t.Errorf("%s is not documented", at)
				}
			}
		}
	}
	if seen < 400 {
		t.Errorf("only %d operations", seen)
	}
}

// served reports whether a path is that of a resource or below it.
func served(path string, r *api.Resource) bool {
	base := root(r.GroupVersion()) + "/" + r.Plural
	if r.Namespaced {
		base = root(r.GroupVersion()) + "/namespaces/{namespace}/" + r.Plural
	}
	return path == base || strings.HasPrefix(path, base+"/") && !strings.HasPrefix(path, base+"/{namespace}/")
}

// operations are the operations of a document by method and path, in comparable form.
func operations(t *testing.T, b []byte) map[string]map[string]string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]string{}
	for path, item := range doc.Paths {
		common := parameters(t, item["parameters"])
		for method, raw := range item {
			if method == "parameters" {
				continue
			}
			var op map[string]json.RawMessage
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatal(err)
			}
			params := append(slices.Clone(common), parameters(t, op["parameters"])...)
			slices.Sort(params)
			is := map[string]string{"parameters": strings.Join(slices.Compact(params), "\n    ")}
			for _, k := range []string{"operationId", "description", "tags", "x-kubernetes-action", "x-kubernetes-group-version-kind", "requestBody", "responses"} {
				var v any
				if op[k] != nil {
					if err := json.Unmarshal(op[k], &v); err != nil {
						t.Fatal(err)
					}
				}
				text, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				is[k] = string(text)
			}
			out[method+" "+path] = is
		}
	}
	return out
}

func parameters(t *testing.T, raw json.RawMessage) []string {
	t.Helper()
	if raw == nil {
		return nil
	}
	var list []struct {
		Name, In, Description string
		Required              bool
		Schema                any
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range list {
		out = append(out, fmt.Sprintf("%s in %s, required %v, %v", p.Name, p.In, p.Required, p.Schema))
	}
	return out
}

// TestV2OperationsAreUpstreams: version 2 names the same operations, each once, with what it consumes and produces.
func TestV2OperationsAreUpstreams(t *testing.T) {
	dir := upstream(t)
	doc, err := New(api.Builtin, unstored(), "v1.37.2").V2()
	if err != nil {
		t.Fatal(err)
	}
	b, err := doc.JSON()
	if err != nil {
		t.Fatal(err)
	}
	u, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := operationsV2(t, b), operationsV2(t, u)
	ids := map[string]bool{}
	for at, op := range ours {
		if op != theirs[at] {
			t.Errorf("%s is\n  %s, want\n  %s", at, op, theirs[at])
		}
		id, _, _ := strings.Cut(op, " ")
		if ids[id] {
			t.Errorf("%s is the name of two operations", id)
		}
		ids[id] = true
	}
	if _, err := doc.ProtobufV2(); err != nil {
		t.Error(err)
	}
}

func operationsV2(t *testing.T, b []byte) map[string]string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for path, item := range doc.Paths {
		for method, raw := range item {
			if method == "parameters" {
				continue
			}
			var op struct {
				OperationID        string
				Consumes, Produces []string
				Schemes, Tags      []string
			}
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatal(err)
			}
			slices.Sort(op.Consumes)
			slices.Sort(op.Produces)
			out[method+" "+path] = fmt.Sprint(op.OperationID, " ", op.Consumes, op.Produces, op.Schemes, op.Tags)
		}
	}
	return out
}
