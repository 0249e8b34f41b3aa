package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const importedRepo = "registry.invalid/e2e/imported"

const importedSpec = `
names: ["` + importedRepo + `:1"]
layers:
- files: [{content: "%s\n", to: /greeting}]
config: {entrypoint: [/tools/busybox, cat, /greeting]}
`

// importedImage builds an image that greets, and returns its archive, the digest of its manifest and its ID.
func importedImage(t *testing.T, greeting string) (archive, digest, id string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "image.yaml"), fmt.Appendf(nil, importedSpec, greeting), 0o600); err != nil {
		t.Fatal(err)
	}
	archive = filepath.Join(dir, "image.tar")
	if out, err := exec.Command(cluster.bin, "image", "build", dir, "-o", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := untar(t, archive)
	var index struct {
		Manifests []struct{ Digest string }
	}
	var manifest struct{ Config struct{ Digest string } }
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	digest = index.Manifests[0].Digest
	if err := json.Unmarshal(files["blobs/"+strings.Replace(digest, ":", "/", 1)], &manifest); err != nil {
		t.Fatal(err)
	}
	return archive, digest, manifest.Config.Digest
}

func untar(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// greets fails the test unless a pod that has the image by a name, as its container's and as a volume, reads the greeting. The image
// has no program; a volume has one.
func greets(t *testing.T, ns, pod, image, greeting string) {
	t.Helper()
	const spec = `
  restartPolicy: Never
  volumes: [{name: v, image: {reference: "IMAGE", pullPolicy: Never}}, {name: tools, emptyDir: {}}]
  initContainers: [{name: tools, image: "busybox:1", command: [cp, /bin/busybox, /tools/], volumeMounts: [{name: tools, mountPath: /tools}]}]
  containers:
  - {name: own, image: "IMAGE", imagePullPolicy: Never, volumeMounts: [{name: tools, mountPath: /tools}]}
  - {name: mounted, image: "busybox:1", command: [cat, /v/greeting], volumeMounts: [{name: v, mountPath: /v}]}
`
	apply(t, ns, manifest(pod, strings.ReplaceAll(spec, "IMAGE", image)))
	awaitPod(t, ns, pod, 60*time.Second, "ended", ended)
	for _, c := range []string{"own", "mounted"} {
		if got := kubectl(t, "-n", ns, "logs", pod, "-c", c); got != greeting+"\n" {
			t.Errorf("%s, container %s reads %q, want %q", pod, c, got, greeting)
		}
	}
}

// listedImage returns the lines of knarr image ls that hold a text.
func listedImage(t *testing.T, text string) []string {
	t.Helper()
	out, err := knarr("image", "ls")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool { return !strings.Contains(l, text) })
}

func TestAnImportedImageIsUsedByTagDigestAndID(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	archive, digest, id := importedImage(t, "one")
	newer, newerDigest, newerID := importedImage(t, "two")
	if out, err := knarr("image", "import", archive); err != nil || out != importedRepo+":1\n" {
		t.Fatalf("%q, %v", out, err)
	}
	greets(t, ns, "tag", importedRepo+":1", "one")
	greets(t, ns, "digest", importedRepo+"@"+digest, "one")
	greets(t, ns, "id", id, "one")
	var p corev1.Pod
	get(t, &p, "-n", ns, "get", "pod", "digest")
	if got := p.Status.ContainerStatuses[1].ImageID; !strings.HasSuffix(got, "@"+digest) {
		t.Errorf("the container's imageID is %s, want the digest", got)
	}

	// An import that fails or is killed changes nothing.
	half := filepath.Join(t.TempDir(), "half.tar")
	data, err := os.ReadFile(newer)
	if err == nil {
		err = os.WriteFile(half, data[:len(data)/1024*512+100], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := knarr("image", "import", half); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("half an archive was imported: %q, %v", out, err)
	}
	killImport(t, data[:len(data)-1024])
	greets(t, ns, "after-failures", importedRepo+":1", "one")
	if got := listedImage(t, importedRepo); len(got) != 1 || !strings.Contains(got[0], id[:19]) || !strings.Contains(got[0], digest[:19]) {
		t.Errorf("after failed imports ls shows %q", got)
	}

	// The tag moves on; the older image stays under its digest.
	if _, err := knarr("image", "import", newer); err != nil {
		t.Fatal(err)
	}
	greets(t, ns, "newer", importedRepo+":1", "two")
	greets(t, ns, "older", importedRepo+"@"+digest, "one")
	if got := listedImage(t, importedRepo); len(got) != 2 || !strings.HasPrefix(got[0], importedRepo+":1 ") || !strings.HasPrefix(got[1], importedRepo+"@"+digest+" ") {
		t.Errorf("ls shows %q", got)
	}
	eventually(t, 90*time.Second, "the node's list of images", func() error {
		for _, want := range []string{importedRepo + ":1", importedRepo + "@" + newerDigest, importedRepo + "@" + digest} {
			if out := kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].status.images[*].names}"); !strings.Contains(out, want) {
				return fmt.Errorf("%s is not in %s", want, out)
			}
		}
		return nil
	})

	// Removed by digest and by a shortened ID, they are not there.
	for _, name := range []string{importedRepo + "@" + digest, newerID[:19]} {
		if _, err := knarr("image", "rm", name); err != nil {
			t.Error(err)
		}
	}
	if got := listedImage(t, importedRepo); len(got) != 0 {
		t.Errorf("ls still shows %q", got)
	}
	apply(t, ns, manifest("gone", `  containers: [{name: c, image: "`+importedRepo+`:1", imagePullPolicy: Never}]`))
	awaitPod(t, ns, "gone", 60*time.Second, "refused", waitingFor("ErrImageNeverPull", importedRepo+":1"))
}

// killImport kills an import that has read all of an archive but its end.
func killImport(t *testing.T, data []byte) {
	t.Helper()
	cmd := exec.Command(cluster.bin, "image", "import", "--data-dir", cluster.dataDir, "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, writeErr := in.Write(data)
	killErr := cmd.Process.Kill()
	if err := cmd.Wait(); err == nil || errors.Join(writeErr, killErr) != nil {
		t.Errorf("the import was not killed: %v, %v, %v\n%s", err, writeErr, killErr, out.String())
	}
}
