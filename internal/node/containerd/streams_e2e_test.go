package containerd

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/image"
)

// TestExecStream runs a command over the URL that Exec gives, as kubectl exec does.
func TestExecStream(t *testing.T) {
	s, _ := supervise(t, e2eOptions(t))
	importTestImage(t, s)
	c := dial(t, s)
	_, container := startPod(t, s, c)
	address, err := c.Exec(t.Context(), &cri.ExecRequest{
		ContainerId: container, Cmd: []string{"/bin/sh", "-c", "/bin/cat; echo done >&2; exit 4"}, Stdin: true, Stdout: true, Stderr: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() != "127.0.0.1" {
		t.Fatalf("URL %q, %v; want https on the loopback address only", address, err)
	}
	// Without TLS there is nothing but the hint that Go's server gives.
	plain, err := http.Post("http://"+u.Host+u.Path, "", nil)
	if err != nil || plain.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP: %v, %v; want status 400", plain, err)
	} else {
		plain.Body.Close()
	}
	trust := rest.TLSClientConfig{CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.StreamCertificate().Raw})}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{TLSClientConfig: trust}, "POST", u)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &stdout, Stderr: &stderr})
	if err == nil || !strings.Contains(err.Error(), "exit code 4") || stdout.String() != "hello" || stderr.String() != "done\n" {
		t.Errorf("exec: %v, stdout %q, stderr %q; want exit code 4, hello, done", err, &stdout, &stderr)
	}
}

// TestPullThroughMirror pulls an image of docker.io from a registry on this machine that hosts.toml names as its mirror.
func TestPullThroughMirror(t *testing.T) {
	s, _ := supervise(t, e2eOptions(t))
	c := dial(t, s)
	server := httptest.NewServer(registry.New())
	defer server.Close()
	built, err := image.Build(t.Context(), t.TempDir(), &image.Spec{
		Names:  []string{"docker.io/knarr/pulled:1"},
		Layers: []image.Layer{{Files: []image.File{{Content: "cargo", To: "/cargo"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	push(t, server.URL+"/v2/knarr/pulled", "1", built)
	hosts := filepath.Join(s.options.RegistryDir, "docker.io", "hosts.toml")
	if err := os.MkdirAll(filepath.Dir(hosts), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hosts, []byte("server = \""+server.URL+"\"\n[host.\""+server.URL+"\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := &cri.ImageSpec{Image: built.Names[0]}
	got, err := c.PullImage(t.Context(), spec, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.ImageStatus(t.Context(), spec)
	if err != nil || status.GetId() != got {
		t.Errorf("pulled %s, status %v, %v", got, status, err)
	}
	spec.Image = "docker.io/knarr/none:1"
	if got, err := c.PullImage(t.Context(), spec, nil, nil); err == nil {
		t.Errorf("an image that is nowhere was pulled: %s", got)
	} else {
		t.Log(err)
	}
	store, err := image.OpenStore(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Remove(t.Context(), "knarr/pulled:1"); err != nil {
		t.Fatal(err)
	}
	left, err := store.List(t.Context())
	if err != nil || len(left) != 1 || left[0].Name != PauseImage {
		t.Errorf("after removal: %v, %v; want the pause image alone", left, err)
	}
}

// push puts an image into a registry (OCI distribution-spec, pushing).
func push(t *testing.T, repository, tag string, img v1.Image) {
	t.Helper()
	send := func(method, url, contentType string, content []byte) {
		t.Helper()
		r, err := http.NewRequest(method, url, bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s: %s %s", method, url, answer.Status, text)
		}
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		send("POST", repository+"/blobs/uploads/?digest="+digest.String(), "application/octet-stream", content)
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	content, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	send("POST", repository+"/blobs/uploads/?digest="+config.String(), "application/octet-stream", content)
	if content, err = img.RawManifest(); err != nil {
		t.Fatal(err)
	}
	kind, err := img.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	send("PUT", repository+"/manifests/"+tag, string(kind), content)
}
