package discovery

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// upstream returns where the source of k8s.io/kubernetes is, with Kubernetes' own discovery documents.
func upstream(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skip("the module k8s.io/kubernetes is not on this machine")
	}
	return filepath.Join(dir, "api", "discovery")
}

// TestResourcesAreUpstreams compares every line that Knarr serves with Kubernetes' own, field by field, and looks for
// subresources that are missing.
func TestResourcesAreUpstreams(t *testing.T) {
	dir := upstream(t)
	d := New(api.Builtin, nil, nil, "")
	for gv, l := range d.resources {
		name := "apis__" + gv.Group + "__" + gv.Version + ".json"
		if gv.Group == "" {
			name = "api__" + gv.Version + ".json"
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var want metav1.APIResourceList
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		theirs := map[string]metav1.APIResource{}
		for _, r := range want.APIResources {
			theirs[r.Name] = r
		}
		served := map[string]bool{}
		for _, r := range l.APIResources {
			served[r.Name] = true
			ours, _ := json.Marshal(r)
			them, ok := theirs[r.Name]
			if !ok {
				t.Errorf("%s: Kubernetes has no %s", gv, r.Name)
				continue
			}
			slices.Sort(them.Verbs)
			switch r.Name {
			case "customresourcedefinitions", "clustertrustbundles", "podcertificaterequests", "storageversionmigrations", "devicetaintrules":
				them.StorageVersionHash = r.StorageVersionHash // Kubernetes stores them in a beta version, which it does not serve by default
			}
			upstream, _ := json.Marshal(them)
			if string(ours) != string(upstream) {
				t.Errorf("%s:\n%s\nwant\n%s", gv, ours, upstream)
			}
		}
		for name := range theirs {
			if parent, _, sub := strings.Cut(name, "/"); sub && served[parent] && !served[name] {
				t.Errorf("%s: %s is not served", gv, name)
			}
		}
	}
}

// TestAggregatedAgrees checks that the aggregated documents say what the lists say.
func TestAggregatedAgrees(t *testing.T) {
	d := New(api.Builtin, []Review{{GroupVersionKind: schema.GroupVersionKind{Group: "authorization.k8s.io", Version: "v1", Kind: "SubjectAccessReview"}, Plural: "subjectaccessreviews"}}, nil, "")
	names := map[string]bool{}
	for _, g := range append(slices.Clone(d.Core.Items), d.Named.Items...) {
		for _, v := range g.Versions {
			for _, r := range v.Resources {
				prefix := g.Name + "/" + v.Version + "/" + r.Resource
				names[prefix] = true
				for _, s := range r.Subresources {
					names[prefix+"/"+s.Subresource] = true
				}
			}
		}
	}
	total := 0
	for gv, l := range d.resources {
		for _, r := range l.APIResources {
			total++
			if !names[gv.Group+"/"+gv.Version+"/"+r.Name] {
				t.Errorf("%s %s is not in the aggregated document", gv, r.Name)
			}
		}
	}
	if total != len(names) {
		t.Errorf("the lists have %d entries, the aggregated documents %d", total, len(names))
	}
	if d.CoreETag == d.NamedETag || len(d.CoreETag) != 64 {
		t.Errorf("entity tags %s and %s", d.CoreETag, d.NamedETag)
	}
}
