package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/node/local"
	"github.com/knarr-io/knarr/internal/node/mount"
	"github.com/knarr-io/knarr/internal/node/persistent"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// claimed is a source with claim c, bound to pv.
type claimed struct {
	source
	pv   *corev1.PersistentVolume
	asks int
}

func (s *claimed) Claim(_ context.Context, ns, name string) (*corev1.PersistentVolumeClaim, error) {
	s.asks++
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: "claim"},
		Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}, nil
}

func (s *claimed) PersistentVolume(context.Context, string) (*corev1.PersistentVolume, error) {
	return s.pv, nil
}

func newVolume(s corev1.PersistentVolumeSource) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: s,
		ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "c", UID: "claim"},
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}}}
}

// claimPod returns a pod whose container mounts claim c, a directory in it, too.
func claimPod() *corev1.Pod {
	p := podWith(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}})
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}, {Name: "v", MountPath: "/sub", SubPath: "sub"}}
	return p
}

func newDisk(t *testing.T) *Disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := mount.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
	})
	pods := filepath.Join(dir, "pods")
	return &Disk{Dir: pods, Claims: &persistent.Mounter{Pods: pods, Local: &local.Store{Dir: filepath.Join(dir, "volumes")}, Node: func() *corev1.Node { return nil }}}
}

func TestClaimsAreMountedAndTheirDataStays(t *testing.T) {
	d := newDisk(t)
	src := &claimed{pv: newVolume(corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: localvolume.Driver, VolumeHandle: "pv"}})}
	pod := claimPod()
	for round := range 2 {
		vols, _, err := d.Setup(t.Context(), pod, src, podspec.Facts{})
		if err != nil {
			t.Fatal(err)
		}
		mounts, err := d.Mounts(pod, &pod.Spec.Containers[0], vols, nil)
		if err != nil || len(mounts) != 2 {
			t.Fatal(mounts, err)
		}
		file := filepath.Join(mounts[1].HostPath, "file")
		if round == 0 {
			err = os.WriteFile(file, []byte("data"), 0o600)
		}
		if b, e := os.ReadFile(filepath.Join(mounts[0].HostPath, "sub", "file")); err != nil || e != nil || string(b) != "data" {
			t.Fatalf("round %d: %q %v %v", round, b, err, e)
		}
		// Bringing the volumes of a running pod up to date asks the API for nothing: the claim may be gone.
		asks := src.asks
		again, _, err := (&Disk{Dir: d.Dir, Claims: d.Claims}).Setup(t.Context(), pod, src, podspec.Facts{})
		if err != nil || again["v"] != vols["v"] || src.asks != asks {
			t.Errorf("again: %+v %v, asked %d times", again, err, src.asks-asks)
		}
		if err := d.Teardown(t.Context(), "uid-1"); err != nil || len(d.Pods()) != 0 {
			t.Fatal(err, d.Pods())
		}
	}
}

// A mount that is not found must not be removed through. Here it is hidden from Teardown, which is given another name for the directory.
func TestTeardownNeverRemovesThroughAMount(t *testing.T) {
	d := newDisk(t)
	src := &claimed{pv: newVolume(corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: localvolume.Driver, VolumeHandle: "pv"}})}
	pod := claimPod()
	vols, _, err := d.Setup(t.Context(), pod, src, podspec.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mounts(pod, &pod.Spec.Containers[0], vols, nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(vols["v"].HostPath, "sub", "file")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mount.Bind(d.Dir, other, 0); err != nil { // shows the directories, not what is mounted in them
		t.Fatal(err)
	}
	defer func() {
		if err := mount.UnmountBelow(filepath.Dir(other)); err != nil {
			t.Error(err)
		}
	}()
	hidden := &Disk{Dir: other, Claims: &persistent.Mounter{Pods: other, Local: d.Claims.Local, Node: d.Claims.Node}}
	if err := hidden.Teardown(t.Context(), "uid-1"); err == nil {
		t.Log("the mount points were removed below the mounts") // newer kernels detach them
	}
	if b, err := os.ReadFile(filepath.Join(d.Claims.Local.Dir, "pv", "data", "sub", "file")); err != nil || string(b) != "data" {
		t.Errorf("the data is gone: %q %v", b, err)
	}
}

func TestClaimsOfHostPaths(t *testing.T) {
	d := newDisk(t)
	dir := t.TempDir()
	kind := corev1.HostPathDirectory
	src := &claimed{pv: newVolume(corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: &kind}})}
	pod := claimPod()
	pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	vols, _, err := d.Setup(t.Context(), pod, src, podspec.Facts{})
	if err != nil || vols["v"] != (Mounted{HostPath: dir, ReadOnly: true}) {
		t.Errorf("%+v %v", vols, err)
	}
	src.pv.Spec.HostPath.Path = "/none"
	_, _, err = d.Setup(t.Context(), pod, src, podspec.Facts{})
	if err == nil || !strings.HasPrefix(err.Error(), `MountVolume.SetUp failed for volume "pv" : hostPath type check failed`) {
		t.Error(err)
	}
}

func TestNFSIsMountedByTheMachine(t *testing.T) {
	d := newDisk(t)
	bin := t.TempDir() // in place of the machine's own programs
	log := filepath.Join(bin, "log")
	for _, name := range []string{"mount", "mount.nfs"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho \"$0 $*\" >>"+log+"\nexit 32\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	pod := podWith(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "fd00::1", Path: "/exports", ReadOnly: true}})
	_, _, err := d.Setup(t.Context(), pod, &source{}, podspec.Facts{})
	if err == nil || !strings.HasPrefix(err.Error(), `MountVolume.SetUp failed for volume "v" : mount failed: exit status 32`) {
		t.Error(err)
	}
	want := filepath.Join(bin, "mount") + " -o ro -t nfs [fd00::1]:/exports " + filepath.Join(d.Dir, "uid-1", "claims", "v", "mount") + "\n"
	if said, err := os.ReadFile(log); err != nil || string(said) != want {
		t.Errorf("called %q, %v", said, err)
	}
	if err := d.Teardown(t.Context(), "uid-1"); err != nil {
		t.Error(err)
	}
}

func TestDevicesOfContainers(t *testing.T) {
	c := &corev1.Container{Name: "c", VolumeDevices: []corev1.VolumeDevice{{Name: "a", DevicePath: "/dev/a"}, {Name: "b", DevicePath: "/dev/b"}}}
	vols := map[string]Mounted{"a": {HostPath: "/dev/loop1", Device: true}, "b": {HostPath: "/dev/loop2", Device: true, ReadOnly: true}, "v": {HostPath: "/v"}}
	got, err := Devices(c, vols)
	if err != nil || len(got) != 2 || got[0].HostPath != "/dev/loop1" || got[0].ContainerPath != "/dev/a" || got[0].Permissions != "mrw" || got[1].Permissions != "r" {
		t.Errorf("%v %v", got, err)
	}
	c.VolumeDevices = []corev1.VolumeDevice{{Name: "v", DevicePath: "/dev/v"}}
	if _, err := Devices(c, vols); err == nil {
		t.Error("files were given as a device")
	}
}
