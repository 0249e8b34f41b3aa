package openapi

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

func upstream(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skip("the module k8s.io/kubernetes is not on this machine")
	}
	return filepath.Join(dir, "api", "openapi-spec", "v3")
}

// TestSchemasAreUpstreams compares the schemas of all served kinds with those that Kubernetes publishes: which fields there
// are, of which type, which merge keys and which descriptions.
func TestSchemasAreUpstreams(t *testing.T) {
	dir := upstream(t)
	d := New(api.Builtin, nil, "v1.37.2")
	for _, gv := range d.versions {
		doc, _, err := d.V3(gv)
		if err != nil {
			t.Fatal(err)
		}
		b, err := doc.JSON()
		if err != nil {
			t.Fatal(err)
		}
		name := strings.NewReplacer("/", "__").Replace(pathOf(gv)) + "_openapi.json"
		u, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := schemas(t, b), schemas(t, u)
		for name, s := range ours {
			them, ok := theirs[name]
			if !ok {
				continue // upstream leaves out lists and options that none of its paths name
			}
			if strings.HasPrefix(name, "io.k8s.apiextensions-apiserver.") || strings.HasPrefix(name, "io.k8s.kube-aggregator.") {
				continue // the types of definitions and APIServices carry no descriptions, without which references look different
			}
			compareSchema(t, name, s, them)
		}
		for name, them := range theirs {
			if kinds, ok := them["x-kubernetes-group-version-kind"].([]any); ok && len(kinds) == 1 && ours[name] != nil {
				if !reflect.DeepEqual(ours[name]["x-kubernetes-group-version-kind"], any(kinds)) {
					t.Errorf("%s: kinds %v, want %v", name, ours[name]["x-kubernetes-group-version-kind"], kinds)
				}
			}
		}
	}
}

func schemas(t *testing.T, b []byte) map[string]object {
	t.Helper()
	var doc struct {
		Components struct{ Schemas map[string]object }
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Components.Schemas
}

// compareSchema reports the differences that a client could notice.
func compareSchema(t *testing.T, name string, ours, theirs object) {
	t.Helper()
	for _, k := range []string{"type", "format", "oneOf", "x-kubernetes-map-type"} {
		if !reflect.DeepEqual(ours[k], theirs[k]) {
			t.Errorf("%s: %s is %v, want %v", name, k, ours[k], theirs[k])
		}
	}
	a, _ := ours["properties"].(object)
	b, _ := theirs["properties"].(object)
	for p, want := range b {
		got, ok := a[p].(object)
		if !ok {
			t.Errorf("%s has no %s", name, p)
			continue
		}
		w := bare(want.(object))
		for _, k := range []string{"type", "format", "x-kubernetes-patch-strategy", "x-kubernetes-patch-merge-key", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "allOf", "$ref", "items", "additionalProperties", "description"} {
			g, x := normal(got[k]), normal(w[k])
			if k == "description" {
				// SwaggerDoc breaks lines differently and drops drawings and what follows them.
				if g, x = oneLine(got[k]), oneLine(w[k]); g != "" && (strings.HasPrefix(x, g) || strings.HasSuffix(name, ".WatchEvent")) {
					continue
				}
			}
			if k == "x-kubernetes-list-type" && w[k] == nil && got[k] == "atomic" {
				continue // what lists are unless something else is said
			}
			if g != x {
				t.Errorf("%s.%s: %s is %s, want %s", name, p, k, g, x)
			}
		}
	}
	for p := range a {
		if b[p] == nil {
			t.Errorf("%s: Kubernetes has no %s", name, p)
		}
	}
	if g, w := sorted(ours["required"]), sorted(theirs["required"]); g != w {
		t.Errorf("%s: requires %s, want %s", name, g, w)
	}
}

// bare is a field's schema without the wrapping that upstream needs only to say a default beside a $ref.
func bare(s object) object {
	of, ok := s["allOf"].([]any)
	if _, has := s["default"]; !ok || !has || len(s) != 2 || len(of) != 1 {
		return s
	}
	return of[0].(object)
}

// oneLine makes a description comparable.
func oneLine(v any) string {
	s, _ := v.(string)
	return strings.Join(strings.Fields(strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(s)), " ")
}

// normal writes a schema without defaults, which Knarr does not publish.
func normal(v any) string {
	if m, ok := v.(object); ok {
		c := object{}
		for k, e := range m {
			if k != "default" {
				c[k] = e
			}
		}
		if of, ok := c["allOf"].([]any); ok && len(c) == 1 && len(of) == 1 {
			return normal(of[0])
		}
		v = c
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func sorted(v any) string {
	list, _ := v.([]any)
	var out []string
	for _, e := range list {
		out = append(out, fmt.Sprint(e))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestDeterministic checks that the same declarations make the same bytes, since the hash of a document is its address.
func TestDeterministic(t *testing.T) {
	gv := schema.GroupVersion{Group: "apps", Version: "v1"}
	one, _, err := New(api.Builtin, nil, "v").V3(gv)
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := New(api.Builtin, nil, "v").V3(gv)
	if err != nil || one.Hash != two.Hash {
		t.Errorf("%v %s %s", err, one.Hash, two.Hash)
	}
	if _, ok, _ := New(api.Builtin, nil, "v").V3(schema.GroupVersion{Group: "frogs", Version: "v1"}); ok {
		t.Error("there is a document for a group that is not served")
	}
}

// BenchmarkAll is what the first request for the index costs.
func BenchmarkAll(b *testing.B) {
	for b.Loop() {
		if _, err := New(api.Builtin, nil, "v").Index(); err != nil {
			b.Fatal(err)
		}
	}
}
