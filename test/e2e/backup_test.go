package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerOf identifies the container of a pod: which one it is, and how often it was started anew.
func containerOf(t testing.TB, ns, pod string) string {
	t.Helper()
	return kubectl(t, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
}

// revision is the resourceVersion of a list.
func revision(t testing.TB, ns string) int64 {
	t.Helper()
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal([]byte(kubectl(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/configmaps?limit=1")), &list); err != nil {
		t.Fatal(err)
	}
	rev, err := strconv.ParseInt(list.ResourceVersion, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestClusterComesBackFromABackup(t *testing.T) {
	t.Parallel()
	d := devCluster(t, 2, 1)
	if d == nil {
		return
	}
	server := d.node(1)
	restore := func(file string) (string, error) {
		out, err := exec.Command(cluster.bin, "restore", file, "--data-dir", server.dir).CombinedOutput()
		return string(out), err
	}
	ns := setUp(t, []string{"pod/client-2"}, clientOn(2))
	kubectl(t, "-n", ns, "create", "configmap", "before", "--from-literal=k=v")
	before := containerOf(t, ns, "client-2")

	file := filepath.Join(t.TempDir(), "cluster.knarr")
	if out, err := server.command(t.Context(), cluster.bin, "backup", file, "--data-dir", server.dir).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "backed up ") {
		t.Fatalf("knarr backup: %v\n%s", err, out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v; want nobody else to read it", err, info.Mode())
	}
	if out, err := restore(file); err == nil || !strings.Contains(out, "is not empty") {
		t.Errorf("restoring onto a cluster that is there: %v\n%s", err, out)
	}
	rev := revision(t, ns)
	kubectl(t, "-n", ns, "create", "configmap", "later", "--from-literal=k=v")
	apply(t, ns, strings.ReplaceAll(clientOn(2), "client-2", "later-2"))
	kubectl(t, "-n", ns, "wait", "pod/later-2", "--for=condition=Ready", "--timeout=60s")

	// The server's machine is lost with all that it had.
	server.kill(t)
	if out, err := exec.Command(cluster.bin, "down", "--delete-data", "--data-dir", server.dir).CombinedOutput(); err != nil {
		t.Fatalf("knarr down: %v\n%s", err, out)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(damaged, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := restore(damaged); err == nil || !strings.Contains(out, "the backup is damaged: it ends too early") {
		t.Errorf("restoring half a file: %v\n%s", err, out)
	}
	if out, err := restore(file); err != nil || !strings.Contains(out, "knarr server --data-dir "+server.dir) {
		t.Fatalf("knarr restore: %v\n%s", err, out)
	}
	d.up(t)
	d.importImages(t) // those of the server's machine are lost, too
	for i := range d.nodes {
		d.node(i+1).awaitStatus(t, 2*time.Minute, "True")
	}

	if got := kubectl(t, "-n", ns, "get", "configmap", "before", "-o", "jsonpath={.data.k}"); got != "v" {
		t.Errorf("what was there at the time of the backup: %q", got)
	}
	refusal := refused(t, "", "-n", ns, "get", "configmap", "later")
	if !strings.Contains(refusal, "NotFound") {
		t.Errorf("what was made after the backup: %s", refusal)
	}
	if now := revision(t, ns); now < rev+1_000_000 {
		t.Errorf("the resourceVersion was %d and is %d: watchers would not notice that they have to begin anew", rev, now)
	}
	eventually(t, time.Minute, "the pod that the cluster does not know has ended", func() error {
		found, err := filepath.Glob(filepath.Join(d.node(2).dir, "pods-logs", ns+"_later-2_*"))
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%v", found)
		}
		return err
	})
	if now := containerOf(t, ns, "client-2"); now != before {
		t.Errorf("the pod on the other machine was %q and is %q; want it to have run on", before, now)
	}
	if out := kubectl(t, "-n", ns, "exec", "client-2", "--", "hostname"); strings.TrimSpace(out) != "client-2" {
		t.Errorf("the pod says %q", out)
	}
	// The cluster goes on: what is asked for now happens.
	apply(t, ns, strings.Replace(web, "    spec:\n", "    spec:\n      nodeSelector: {kubernetes.io/hostname: node-2}\n", 1))
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	var pods corev1.PodList
	get(t, &pods, "-n", ns, "get", "pods", "-l", "app=web")
	if len(pods.Items) != 2 {
		t.Errorf("%d pods of the Deployment, want 2", len(pods.Items))
	}
}
