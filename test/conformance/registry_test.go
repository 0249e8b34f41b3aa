package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestRegistryServesArchives(t *testing.T) {
	digest := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	var archive bytes.Buffer
	out := tar.NewWriter(&archive)
	layer, manifest := "a layer", `{"schemaVersion":2}`
	for _, f := range [][2]string{
		{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`},
		{"blobs/sha256/" + digest(layer), layer},
		{"blobs/sha256/" + digest(manifest), manifest},
		{"index.json", fmt.Sprintf(`{"manifests":[{"mediaType":"m/t","digest":"sha256:%s","annotations":{"io.containerd.image.name":"registry.k8s.io/e2e/kitten:1"}}]}`, digest(manifest))},
	} {
		if err := out.WriteHeader(&tar.Header{Name: f[0], Size: int64(len(f[1])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kitten.tar")
	if err := os.WriteFile(path, archive.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := openRegistry([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for _, c := range []struct {
		method, path string
		code         int
		body, kind   string
	}{
		{"GET", "/v2/e2e/kitten/manifests/1", 200, manifest, "m/t"},
		{"HEAD", "/v2/e2e/kitten/manifests/1", 200, "", "m/t"},
		{"GET", "/v2/e2e/kitten/manifests/sha256:" + digest(manifest), 200, manifest, "m/t"},
		{"GET", "/v2/e2e/kitten/blobs/sha256:" + digest(layer), 200, layer, "application/octet-stream"},
		{"GET", "/v2/e2e/kitten/manifests/2", 404, "", ""},
		{"GET", "/v2/e2e/kitten/manifests/sha256:" + digest(layer), 404, "", ""},
		{"GET", "/v2/e2e/kitten/blobs/sha256:" + digest("other"), 404, "", ""},
		{"GET", "/v2/", 404, "", ""},
	} {
		w := httptest.NewRecorder()
		req := httptest.NewRequest(c.method, "http://registry", nil)
		req.URL.Path = c.path
		r.ServeHTTP(w, req)
		if w.Code != c.code || c.code == http.StatusOK && (w.Body.String() != c.body || w.Header().Get("Content-Type") != c.kind) {
			t.Errorf("%s %s: %d %q %v", c.method, c.path, w.Code, w.Body, w.Header())
		}
	}
}
