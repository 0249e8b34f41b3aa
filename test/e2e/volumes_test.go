package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// database is a StatefulSet whose pod, which is not root, writes down each of its starts in its volume.
const database = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
      containers:
      - name: main
        image: docker.io/library/busybox:1
        command: [sh, -c, "echo start >>/data/starts; sync; exec sleep 86400"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      storageClassName: ""
      volumeName: e2e-data
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 16Mi}}
`

// localVolume is a local volume of node NODE for claim NAMESPACE/data-db-0, which has UID.
const localVolume = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: e2e-data, finalizers: [local.knarr.io/directory]}
spec:
  capacity: {storage: 16Mi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Delete
  csi: {driver: local.knarr.io, volumeHandle: e2e-data}
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: NAMESPACE, name: data-db-0, uid: UID}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [NODE]}]}]}}
`

// The data of a StatefulSet is there whatever ends its pod, and goes with its volume, and only then.
func TestDataOfAStatefulSetSurvives(t *testing.T) {
	if !ownCluster(t) {
		return
	}
	ns := namespace(t)
	apply(t, ns, database)
	var claim corev1.PersistentVolumeClaim
	eventually(t, 30*time.Second, "the claim", func() error {
		_, err := run("", "-n", ns, "get", "pvc", "data-db-0")
		return err
	})
	get(t, &claim, "-n", ns, "get", "pvc", "data-db-0")
	node := kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	apply(t, ns, strings.NewReplacer("NAMESPACE", ns, "UID", string(claim.UID), "NODE", node).Replace(localVolume))
	kubectl(t, "-n", ns, "patch", "pvc", "data-db-0", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Bound"}}`)

	starts := 0
	started := func(why string) {
		t.Helper()
		starts++
		eventually(t, 90*time.Second, fmt.Sprintf("start %d, after %s", starts, why), func() error {
			out, err := run("", "-n", ns, "exec", "db-0", "--", "cat", "/data/starts")
			if n := strings.Count(out, "start"); err == nil && n != starts {
				err = fmt.Errorf("the volume knows of %d", n)
			}
			return err
		})
	}
	started("its creation")
	kubectl(t, "-n", ns, "delete", "pod", "db-0")
	started("the pod was deleted")

	before := containers(t, ns)
	end(t, serverPID(), syscall.SIGKILL)
	if err := startCluster(); err != nil {
		t.Fatal(err)
	}
	untouched(t, ns, before)
	kubectl(t, "-n", ns, "delete", "pod", "db-0")
	started("kill -9 of the server and its agent")

	if out, err := knarr("volume", "ls"); err != nil || !strings.Contains(out, "e2e-data") || !strings.Contains(out, ns+"/db-0") {
		t.Errorf("knarr volume ls: %v\n%s", err, out)
	}
	if _, err := knarr("down"); err != nil {
		t.Fatal(err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), cluster.dataDir+"/pods/") {
		t.Errorf("knarr down left mounts: %v\n%s", err, mounts)
	}
	if err := startCluster(); err != nil {
		t.Fatal(err)
	}
	started("the machine was taken down and up")

	volumes := filepath.Join(cluster.dataDir, "volumes")
	kubectl(t, "-n", ns, "delete", "statefulset", "db")
	kubectl(t, "-n", ns, "wait", "pod/db-0", "--for=delete", "--timeout=60s")
	if _, err := os.Stat(filepath.Join(volumes, "e2e-data")); err != nil {
		t.Errorf("the data went with the set: %v", err)
	}
	kubectl(t, "-n", ns, "delete", "pvc", "data-db-0")
	kubectl(t, "delete", "pv", "e2e-data", "--ignore-not-found", "--timeout=60s")
	if left, err := os.ReadDir(volumes); err != nil || len(left) > 0 {
		t.Errorf("left after the volume's end: %v %v", left, err)
	}
}
