package webhook_test

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
)

// TestWebhooksFromFiles: they are asked before those of the cluster, and about configurations, too, which those of the cluster are not.
func TestWebhooksFromFiles(t *testing.T) {
	b := serve(t, map[string]answer{"/guard": func(r *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) {
		if out.Allowed = r.Name != "bad" && r.Operation != admissionv1.Delete; !out.Allowed {
			out.Result = &metav1.Status{Message: "guarded"}
		}
	}})
	dir := t.TempDir()
	text := fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: guard.static.k8s.io}
webhooks:
- name: guard.example.com
  clientConfig: {url: "%s/guard", caBundle: %s}
  rules: [{apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: [configmaps, validatingwebhookconfigurations]}]
  sideEffects: None
  admissionReviewVersions: [v1]
`, b.URL, base64.StdEncoding.EncodeToString(b.ca))
	if err := os.WriteFile(filepath.Join(dir, "guard.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := manifests.Open(manifests.Config{Dirs: map[string]string{manifests.ValidatingWebhooks: dir}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := beginWith(t, files)
	if _, err := c.create(as("ann"), "good"); err != nil {
		t.Errorf("what it allows: %v", err)
	}
	if _, err := c.create(as("ann"), "bad"); err == nil || !strings.Contains(err.Error(), `admission webhook "guard.example.com" denied the request: guarded`) {
		t.Errorf("what it refuses: %v", err)
	}
	b.requests()
	c.validating(t, "own", b.config("/own"))
	if _, paths := b.requests(); strings.Join(paths, " ") != "/guard" {
		t.Errorf("about a configuration %v were asked, want /guard", paths)
	}
	if _, err := c.create(as("ann"), "both"); err != nil {
		t.Error(err)
	}
	if _, paths := b.requests(); len(paths) != 2 {
		t.Errorf("about a ConfigMap %v were asked, want both", paths)
	}
	err = c.Delete(as("ann"), api.ValidatingWebhookConfigurations, api.Key{Name: "own"}, metav1.DeleteOptions{})
	if err == nil || !strings.Contains(err.Error(), "guarded") {
		t.Errorf("deleting a configuration that a webhook from a file guards: %v", err)
	}
}
