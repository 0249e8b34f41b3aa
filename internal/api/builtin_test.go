package api

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kubernetesServes returns what a kube-apiserver of this release serves by default in stable versions, by group-version and
// name ("pods", "pods/status").
func kubernetesServes(t *testing.T) map[schema.GroupVersion]map[string]metav1.APIResource {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Skip("the module k8s.io/kubernetes is not on this machine")
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "api", "discovery", "*__v[12].json"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d discovery documents, %v", len(files), err)
	}
	all := map[schema.GroupVersion]map[string]metav1.APIResource{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var list metav1.APIResourceList
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		all[gv] = map[string]metav1.APIResource{}
		for _, r := range list.APIResources {
			all[gv][r.Name] = r
		}
	}
	return all
}

// elsewhere reads testdata/elsewhere.txt: what Kubernetes serves and Builtin does not name, and why.
func elsewhere(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "elsewhere.txt"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, why, _ := strings.Cut(line, ": ")
		if why == "" {
			t.Errorf("%q does not say why", line)
		}
		out[name] = true
	}
	return out
}

// What Kubernetes serves by default is in the catalogue, or testdata/elsewhere.txt says why it is not; and what is in the
// catalogue has Kubernetes' names, scope, categories and subresources.
func TestBuiltinIsWhatKubernetesServes(t *testing.T) {
	all, absent := kubernetesServes(t), elsewhere(t)
	for gv, names := range all {
		for name, want := range names {
			if strings.Contains(name, "/") {
				continue
			}
			at := gv.String() + " " + name
			res, served := BuiltinCatalog().Find(gv.WithResource(name))
			if served == absent[at] {
				t.Errorf("%s: served %v, in elsewhere.txt %v", at, served, absent[at])
			}
			delete(absent, at)
			if !served {
				continue
			}
			compareNames(t, at, res, want)
			if status := names[name+"/status"].Name != ""; status != res.Status {
				t.Errorf("%s: status subresource %v, Kubernetes %v", at, res.Status, status)
			}
			if scale := names[name+"/scale"].Name != ""; scale != (res.Scale != nil) {
				t.Errorf("%s: scale subresource %v, Kubernetes %v", at, res.Scale != nil, scale)
			}
		}
	}
	for at := range absent {
		t.Errorf("elsewhere.txt names %s, which Kubernetes does not serve", at)
	}
	for _, res := range Builtin {
		if _, ok := all[res.GroupVersion()][res.Plural]; !ok {
			t.Errorf("Kubernetes does not serve %s", res.GroupVersionResource())
		}
	}
}

func compareNames(t *testing.T, at string, res *Resource, want metav1.APIResource) {
	t.Helper()
	categories := slices.Sorted(slices.Values(res.Categories))
	got := fmt.Sprint(res.Kind, res.Singular, res.Namespaced, res.ShortNames, categories)
	slices.Sort(want.Categories)
	if w := fmt.Sprint(want.Kind, want.SingularName, want.Namespaced, want.ShortNames, want.Categories); got != w {
		t.Errorf("%s: %s, Kubernetes %s", at, got, w)
	}
}
