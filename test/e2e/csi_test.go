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

// csiDriver is a driver as its authors deploy it, made for a kubelet: it knows of no directory but /var/lib/kubelet.
const csiDriver = `
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: csi.e2e.knarr.io}
spec: {attachRequired: true, podInfoOnMount: true, fsGroupPolicy: File, volumeLifecycleModes: [Persistent, Ephemeral]}
---
apiVersion: v1
kind: Pod
metadata: {name: driver}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: driver
    image: docker.io/library/busybox:1
    command: [/driver]
    env: [{name: KNARR_E2E, value: "1"}, {name: KNARR_E2E_STAGE, value: csi-driver}]
    securityContext: {privileged: true}
    volumeMounts:
    - {name: program, mountPath: /driver, readOnly: true}
    - {name: plugins, mountPath: /var/lib/kubelet/plugins, mountPropagation: Bidirectional}
    - {name: pods, mountPath: /var/lib/kubelet/pods, mountPropagation: Bidirectional}
    - {name: registry, mountPath: /var/lib/kubelet/plugins_registry}
  volumes:
  - {name: program, hostPath: {path: %s, type: File}}
  - {name: plugins, hostPath: {path: /var/lib/kubelet/plugins, type: DirectoryOrCreate}}
  - {name: pods, hostPath: {path: /var/lib/kubelet/pods, type: Directory}}
  - {name: registry, hostPath: {path: /var/lib/kubelet/plugins_registry, type: Directory}}
`

const csiVolume = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s-csi}
spec:
  capacity: {storage: 16Mi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  claimRef: {namespace: %[1]s, name: data}
  csi: {driver: csi.e2e.knarr.io, volumeHandle: disk-1}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: %[1]s-csi, resources: {requests: {storage: 16Mi}}}
`

const csiUser = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
  - name: main
    image: docker.io/library/busybox:1
    command: [sh, -c, "echo start >>/data/starts; exec sleep 86400"]
    volumeMounts: [{name: data, mountPath: /data}, {name: inline, mountPath: /inline}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - {name: inline, csi: {driver: csi.e2e.knarr.io, volumeAttributes: {say: hello}}}
`

// A driver that is made for a kubelet has its volumes staged and published, whatever is killed meanwhile, and gets each of them back.
func TestCSIDriver(t *testing.T) {
	if !ownCluster(t) {
		return
	}
	ns := namespace(t)
	apply(t, ns, fmt.Sprintf(csiDriver, executable()))
	home := filepath.Join(cluster.dataDir, "kubelet", "plugins", csiName)
	calls := func() string {
		b, _ := os.ReadFile(filepath.Join(home, "calls"))
		return string(b)
	}
	eventually(t, time.Minute, "the driver has registered", func() error {
		out, err := run("", "get", "csinode", "-o", "jsonpath={.items[*].spec.drivers[*].name}")
		if err == nil && out != csiName {
			err = fmt.Errorf("drivers %q", out)
		}
		return err
	})
	if out := kubectl(t, "get", "node", "-o", "jsonpath={.items[0].metadata.labels}"); !strings.Contains(out, `"topology.csi.e2e.knarr.io/rack":"r1"`) {
		t.Errorf("labels of the node: %s", out)
	}
	apply(t, ns, fmt.Sprintf(csiVolume, ns)+"---"+fmt.Sprintf(csiUser, "user"))
	var attachment string
	eventually(t, time.Minute, "the volume is to be attached", func() (err error) {
		attachment, err = run("", "get", "volumeattachment", "-o", "jsonpath={.items[*].metadata.name}")
		if err == nil && attachment == "" {
			err = fmt.Errorf("nothing is")
		}
		return err
	})
	if said := calls(); strings.Contains(said, "disk-1") {
		t.Errorf("the driver was asked for a volume that is not attached:\n%s", said)
	}
	// What the driver's external-attacher says.
	kubectl(t, "patch", "volumeattachment", attachment, "--subresource=status", "--type=merge", "-p", `{"status": {"attached": true, "attachmentMetadata": {"slot": "seven"}}}`)
	started := func(pod string, times int) {
		t.Helper()
		eventually(t, time.Minute, fmt.Sprintf("start %d", times), func() error {
			out, err := run("", "-n", ns, "exec", pod, "--", "cat", "/data/starts")
			if n := strings.Count(out, "start"); err == nil && n != times {
				err = fmt.Errorf("the volume knows of %d\n%s", n, calls())
			}
			return err
		})
	}
	started("user", 1)
	if out := kubectl(t, "-n", ns, "exec", "user", "--", "sh", "-c", "cat /inline/said; stat -c ' %g' /data/starts"); out != "hello user true 2000\n" {
		t.Errorf("the pod sees %q", out)
	}
	if out := kubectl(t, "get", "node", "-o", "jsonpath={.items[0].status.volumesInUse}"); out != `["kubernetes.io/csi/csi.e2e.knarr.io^disk-1"]` {
		t.Errorf("in use: %s", out)
	}

	// The agent is killed, and the driver; what they had done is known to those that come after.
	before := containers(t, ns)
	end(t, serverPID(), syscall.SIGKILL)
	if err := startCluster(); err != nil {
		t.Fatal(err)
	}
	untouched(t, ns, before)
	apply(t, ns, fmt.Sprintf(csiUser, "beside"))
	started("beside", 2)
	kubectl(t, "-n", ns, "delete", "pod", "driver", "--wait=false")
	kubectl(t, "-n", ns, "wait", "pod/driver", "--for=delete", "--timeout=60s")
	kubectl(t, "-n", ns, "delete", "pod", "user", "--wait=false")
	apply(t, ns, fmt.Sprintf(csiDriver, executable()))
	kubectl(t, "-n", ns, "wait", "pod/user", "--for=delete", "--timeout=60s")
	kubectl(t, "-n", ns, "delete", "pod", "beside")
	eventually(t, time.Minute, "the volume is detached", func() error {
		out, err := run("", "get", "volumeattachment", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("there is %s\n%s", out, calls())
		}
		return err
	})
	said := calls()
	for call, want := range map[string]int{"stage disk-1 seven\n": 1, "unstage disk-1\n": 1, "publish disk-1\n": 4} { // two of them unpublish
		if n := strings.Count(said, call); n != want {
			t.Errorf("%q was called %d times, want %d:\n%s", call, n, want, said)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(cluster.dataDir, "kubelet", "pods", "*")); len(left) > 0 {
		t.Errorf("left of pods: %q", left)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), "globalmount") || strings.Contains(string(mounts), "kubernetes.io~csi") {
		t.Errorf("left mounted: %v\n%s", err, mounts)
	}
	if b, err := os.ReadFile(filepath.Join(home, "disks", "disk-1", "starts")); err != nil || strings.Count(string(b), "start") != 2 {
		t.Errorf("the data: %q %v", b, err)
	}
}
