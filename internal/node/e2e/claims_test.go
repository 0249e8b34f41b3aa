package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/client"
)

// TestClaims runs pods with volumes of claims on one runtime, whose volumes the tests bind themselves.
func TestClaims(t *testing.T) {
	w := newWorld(t)
	t.Run("a pod waits for its claim", w.in(testWaitsForClaim))
	t.Run("data outlives pods", w.in(testDataOutlivesPods))
	t.Run("a limit", w.in(testLimitedVolume))
	t.Run("a device", w.in(testBlockVolume))
	t.Run("nothing left", w.in(testNothingLeft))
	if loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file"); len(loops) > 0 {
		for _, l := range loops {
			if b, _ := os.ReadFile(l); strings.Contains(string(b), w.dir) {
				t.Errorf("left: %s over %s", l, b)
			}
		}
	}
}

// claim makes a local volume and a claim of the same name, which is bound to it by bind.
func (w *world) claim(name string, change ...func(*corev1.PersistentVolume)) (bind func()) {
	w.t.Helper()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("16Mi")}
	mode, none := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, ""
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{localvolume.NodeLabel: "n1"}, Finalizers: []string{localvolume.Finalizer}}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: mode, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: localvolume.Driver, VolumeHandle: name}},
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}}}},
	}}
	for _, f := range change {
		f(pv)
	}
	made, err := w.c.Create(w.t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: mode, StorageClassName: &none, VolumeName: name, VolumeMode: pv.Spec.VolumeMode, Resources: corev1.VolumeResourceRequirements{Requests: size}}})
	if err != nil {
		w.t.Fatal(err)
	}
	pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: name, UID: types.UID(made.GetUID())}
	w.create(pv)
	return func() {
		w.t.Helper()
		if _, err := client.Mutate(w.t.Context(), w.c, api.Key{Namespace: "default", Name: name}, "status", func(c *corev1.PersistentVolumeClaim) bool {
			c.Status.Phase = corev1.ClaimBound
			return true
		}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// claims gives a pod's container a claim at /data.
func claims(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "data", MountPath: "/sub", SubPath: "sub"}}
	}
}

// end deletes a volume with its claim, and waits until its directory is gone.
func (w *world) end(name string) {
	w.t.Helper()
	if err := client.Delete[*corev1.PersistentVolumeClaim](w.t.Context(), w.c, api.Key{Namespace: "default", Name: name}, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
	if err := client.Delete[*corev1.PersistentVolume](w.t.Context(), w.c, api.Key{Name: name}, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		pv, err := client.Get[*corev1.PersistentVolume](w.t.Context(), w.c, api.Key{Name: name})
		if apierrors.IsNotFound(err) {
			break
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("volume %s is still there: %+v, %v", name, pv, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, "volumes")); err != nil || len(left) > 0 {
		w.t.Errorf("volumes: %v %v", left, err)
	}
}

func testWaitsForClaim(w *world) {
	bind := w.claim("later")
	w.create(pod("waits", "sleep 1000", claims("later")))
	const why = "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process volumes=[data]: error processing PVC default/later: PVC is not bound"
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(w.events("waits"), "Warning FailedMount") || !strings.Contains(w.events("waits"), why); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("events:\n%s", w.events("waits"))
		}
	}
	bind()
	w.until("waits", "running", running)
	w.delete("waits")
	w.end("later")
}

func testDataOutlivesPods(w *world) {
	w.claim("data")()
	w.create(pod("writer", "echo one >/data/file; echo two >/sub/file; sleep 1000", claims("data")))
	before := w.until("writer", "running", running)
	w.stop() // another agent finds what this one mounted
	w.start()
	w.create(pod("beside", "sleep 1000", claims("data")))
	w.until("beside", "running", running)
	after := w.until("writer", "running", running)
	if a, b := after.Status.ContainerStatuses[0], before.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID {
		w.t.Errorf("before %+v\nafter %+v", b, a)
	}
	w.delete("writer")
	w.delete("beside")
	out, _ := w.script(pod("reader", "cat /data/file /sub/file; echo three >/data/new && stat -c '%u %g' /data/new", claims("data"), func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000)), RunAsGroup: ptr(int64(1000)), FSGroup: ptr(int64(2000))}
	}))
	w.is(out, "one\ntwo\n1000 2000")
	w.delete("reader")
	out, _ = w.script(pod("looker", "cat /data/new; (echo x >/data/new) 2>/dev/null || echo refused", claims("data"), func(p *corev1.Pod) {
		p.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
		p.Spec.Containers[0].VolumeMounts = p.Spec.Containers[0].VolumeMounts[:1]
	}))
	w.is(out, "three\nrefused")
	w.delete("looker")
	w.end("data")
}

func testLimitedVolume(w *world) {
	w.claim("limited", func(pv *corev1.PersistentVolume) {
		pv.Spec.CSI.VolumeAttributes = map[string]string{localvolume.LimitAttribute: localvolume.LimitLoop}
	})()
	out, _ := w.script(pod("filler", "dd if=/dev/zero of=/data/large bs=1048576 count=64 2>/dev/null || echo full; rm /data/large; echo one >/data/file", claims("limited"), func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000))}
	}))
	if !strings.HasPrefix(out, "full\n") {
		w.t.Errorf("64 MiB in a volume of 16:\n%s", out)
	}
	w.delete("filler")
	out, _ = w.script(pod("again", "cat /data/file", claims("limited")))
	w.is(out, "one")
	w.delete("again")
	w.end("limited")
}

func testBlockVolume(w *world) {
	w.claim("block", func(pv *corev1.PersistentVolume) { pv.Spec.VolumeMode = ptr(corev1.PersistentVolumeBlock) })()
	device := func(p *corev1.Pod) {
		claims("block")(p)
		p.Spec.Containers[0].VolumeMounts, p.Spec.Containers[0].VolumeDevices = nil, []corev1.VolumeDevice{{Name: "data", DevicePath: "/dev/data"}}
	}
	out, _ := w.script(pod("raw", "echo one >/tmp/one; dd if=/tmp/one of=/dev/data 2>/dev/null && echo written", device))
	w.is(out, "written")
	w.delete("raw")
	out, _ = w.script(pod("raw2", "dd if=/dev/data bs=4 count=1 2>/dev/null", device))
	w.is(out, "one")
	w.delete("raw2")
	w.end("block")
}
