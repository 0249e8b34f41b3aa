package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 16Mi}}
`

// The data of a StatefulSet is there whatever ends its pod, and goes with its volume, and only then.
func TestDataOfAStatefulSetSurvives(t *testing.T) {
	if !ownCluster(t) {
		return
	}
	ns := namespace(t)
	apply(t, ns, database)
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

	volume := kubectl(t, "-n", ns, "get", "pvc", "data-db-0", "-o", "jsonpath={.spec.volumeName}")
	if out, err := knarr("volume", "ls"); err != nil || !strings.Contains(out, volume) || !strings.Contains(out, ns+"/db-0") {
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
	if _, err := os.Stat(filepath.Join(volumes, volume)); err != nil {
		t.Errorf("the data went with the set: %v", err)
	}
	kubectl(t, "-n", ns, "delete", "pvc", "data-db-0")
	kubectl(t, "wait", "pv/"+volume, "--for=delete", "--timeout=60s")
	if left, err := os.ReadDir(volumes); err != nil || len(left) > 0 {
		t.Errorf("left after the claim's end: %v %v", left, err)
	}
}

// classes are claims of a class that holds volumes to their size, and of the default class for a raw device, with a pod that fills one and
// writes to the other.
const classes = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: e2e-limited}
provisioner: local.knarr.io
parameters: {limit: loop}
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: limited}
spec: {storageClassName: e2e-limited, accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: raw}
spec: {volumeMode: Block, accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: filler}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: docker.io/library/busybox:1
    command: [sh, -c, "dd if=/dev/zero of=/data/large bs=1048576 count=64 2>/dev/null || echo full; dd if=/dev/zero of=/dev/raw bs=1048576 count=16 2>/dev/null && echo written; echo kept >/own/file && cat /own/file"]
    volumeMounts: [{name: data, mountPath: /data}, {name: own, mountPath: /own}]
    volumeDevices: [{name: raw, devicePath: /dev/raw}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: limited}}
  - {name: raw, persistentVolumeClaim: {claimName: raw}}
  - name: own
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}}
`

func TestLimitedRawAndEphemeralVolumes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	t.Cleanup(func() { kubectl(t, "delete", "storageclass", "e2e-limited") })
	apply(t, ns, classes)
	kubectl(t, "-n", ns, "wait", "pod/filler", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
	if out := kubectl(t, "-n", ns, "logs", "filler"); out != "full\nwritten\nkept\n" {
		t.Errorf("the pod said\n%s", out)
	}
	kubectl(t, "-n", ns, "delete", "pod/filler", "pvc/limited", "pvc/raw")
	eventually(t, 60*time.Second, "the end of the volumes", func() error {
		out, err := run("", "get", "pv", "-o", "jsonpath={.items[*].spec.claimRef.namespace}")
		if err == nil && strings.Contains(out, ns) {
			err = fmt.Errorf("there are some of namespaces %s", out)
		}
		return err
	})
}
