package e2e

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"
)

func TestImagesThatCannotBeHadAreExplained(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const spec = "  containers: [{name: c, image: \"%\", imagePullPolicy: POLICY}]"
	pod := func(podName, image, policy string) string {
		return manifest(podName, strings.NewReplacer("%", image, "POLICY", policy).Replace(spec))
	}
	apply(t, ns, pod("never", "docker.io/knarr/nosuch:v1", "Never")+
		pod("missing", "127.0.0.1:1/nosuch:v1", "IfNotPresent")+
		pod("always", "127.0.0.1:1/knarr/e2e-web:v1", "Always")+
		pod("invalid", "Not An Image", "IfNotPresent"))
	awaitPod(t, ns, "never", 60*time.Second, "refused", waitingFor("ErrImageNeverPull", `Container image "docker.io/knarr/nosuch:v1" is not present with pull policy of Never`))
	awaitPod(t, ns, "missing", 60*time.Second, "backing off", waitingFor("ImagePullBackOff", `Back-off pulling image "127.0.0.1:1/nosuch:v1"`))
	awaitPod(t, ns, "invalid", 60*time.Second, "refused", waitingFor("InvalidImageName", `Failed to apply default image tag "Not An Image"`))
	awaitEvent(t, ns, "missing", "Failed", "Failed to pull image \"127.0.0.1:1/nosuch:v1\"")
	awaitEvent(t, ns, "missing", "Failed", "Error: ErrImagePull")
	awaitEvent(t, ns, "missing", "BackOff", `Back-off pulling image "127.0.0.1:1/nosuch:v1"`)
	awaitEvent(t, ns, "always", "Pulling", `Pulling image "127.0.0.1:1/knarr/e2e-web:v1"`)
	session(t, ns, []step{
		{"", "get pod never", "0/1 ErrImageNeverPull 0"},
		{"", "get pod missing", "0/1 …Image…Pull…0"},
		{"", "get pod invalid", "0/1 InvalidImageName 0"},
	})
	// The right image, and the pod recovers.
	kubectl(t, "-n", ns, "set", "image", "pod/missing", "c=docker.io/knarr/e2e-web:v1")
	awaitPod(t, ns, "missing", 30*time.Second, "Ready with the right image", ready)
}

// An image is pulled from a registry on this machine that asks for a password.
func TestImagesArePulledWithCredentials(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	host := serveImage(t, "team/app", "v1", "jane", "hush")
	image := host + "/team/app:v1"

	kubectl(t, "-n", ns, "create", "secret", "docker-registry", "right", "--docker-server="+host, "--docker-username=jane", "--docker-password=hush")
	kubectl(t, "-n", ns, "create", "secret", "docker-registry", "wrong", "--docker-server="+host, "--docker-username=jane", "--docker-password=guess")
	const spec = `
  restartPolicy: Never
  imagePullSecrets: [{name: SECRET}]
  containers: [{name: c, image: "IMAGE", command: [/nothing]}]
`
	apply(t, ns, manifest("wrong", strings.NewReplacer("SECRET", "wrong", "IMAGE", image).Replace(spec)))
	awaitPod(t, ns, "wrong", 60*time.Second, "backing off", waitingFor("ImagePullBackOff", image))
	awaitEvent(t, ns, "wrong", "Failed", "401 Unauthorized")
	apply(t, ns, manifest("right", strings.NewReplacer("SECRET", "right", "IMAGE", image).Replace(spec)))
	awaitEvent(t, ns, "right", "Pulled", `Successfully pulled image "`+image+`" in `)
	// The image has no program; that it was asked for one shows that the image is here.
	p := awaitPod(t, ns, "right", 60*time.Second, "ended", ended)
	if s := p.Status.ContainerStatuses[0].State.Terminated; p.Status.Phase != corev1.PodFailed || s.Reason != "StartError" || s.ExitCode != 128 || !strings.Contains(s.Message, "/nothing") {
		t.Errorf("a container whose program does not exist ended as %+v", s)
	}
}

// serveImage is a registry that has one small image, for one user, and returns its host and port
// (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull).
func serveImage(t testing.TB, repository, tag, user, password string) string {
	t.Helper()
	img, err := random.Image(1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	blobs := map[string][]byte{}
	add := func(path string, content []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		blobs["/v2/"+repository+path] = content
	}
	manifest, err := img.RawManifest()
	digest, err2 := img.Digest()
	add("/manifests/"+tag, manifest, err)
	add("/manifests/"+digest.String(), manifest, err2)
	content, err := img.RawConfigFile()
	name, err2 := img.ConfigName()
	add("/blobs/"+name.String(), content, errors.Join(err, err2))
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		name, err2 := l.Digest()
		add("/blobs/"+name.String(), content, errors.Join(err, err2))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		content, ok := blobs[r.URL.Path]
		if !ok && r.URL.Path != "/v2/" {
			http.NotFound(w, r)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
			w.Header().Set("Docker-Content-Digest", digest.String())
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}
