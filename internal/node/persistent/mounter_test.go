package persistent

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/node/local"
	"github.com/knarr-io/knarr/internal/node/loop"
	"github.com/knarr-io/knarr/internal/node/mount"
)

// newMounter returns one over directories of the test's own, from which all mounts are gone when it ends.
func newMounter(t *testing.T) *Mounter {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	m := &Mounter{Pods: filepath.Join(dir, "pods"), Local: &local.Store{Dir: filepath.Join(dir, "volumes")}, Node: func() *corev1.Node { return nil }}
	t.Cleanup(func() {
		if err := errors.Join(mount.UnmountBelow(dir), loop.DetachBelow(dir)); err != nil {
			t.Error(err)
		}
	})
	return m
}

// again returns a mounter as an agent has it that was started after the one of m was killed.
func again(m *Mounter) *Mounter { return &Mounter{Pods: m.Pods, Local: m.Local, Node: m.Node} }

func localVolume(change ...func(*corev1.PersistentVolume)) *Volume {
	o := bound()
	pv := o.volumes["pv"]
	pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("16Mi")}
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: localvolume.Driver, VolumeHandle: "pv"}
	for _, f := range change {
		f(pv)
	}
	return &Volume{Name: "v", Claim: o.claims["data"], PV: pv}
}

func mounted(t *testing.T, m *Mounter, pod *corev1.Pod, v *Volume) Mounted {
	t.Helper()
	out, err := m.Mount(t.Context(), pod, v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// release ends a pod as the agent does.
func release(t *testing.T, m *Mounter, pod types.UID) {
	t.Helper()
	if err := errors.Join(mount.UnmountBelow(filepath.Join(m.Pods, string(pod))), m.Release(t.Context(), pod)); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(m.Pods, string(pod), claimsDir, "*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func put(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "file"))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func limited(pv *corev1.PersistentVolume) {
	pv.Spec.CSI.VolumeAttributes = map[string]string{localvolume.LimitAttribute: localvolume.LimitLoop}
}

// needsLoops skips where there are no loop devices, or no tools for them.
func needsLoops(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip(err)
	}
	for _, tool := range []string{"mkfs.ext4", "debugfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
}

// Each kind of volume has the same data for the next pod, and for an agent that finds it mounted.
func TestDataOutlivesPods(t *testing.T) {
	prepared := t.TempDir()
	for name, v := range map[string]*Volume{
		"a directory": localVolume(),
		"a disk":      localVolume(limited),
		"somebody's directory": localVolume(func(pv *corev1.PersistentVolume) {
			pv.Spec.CSI, pv.Spec.Local = nil, &corev1.LocalVolumeSource{Path: prepared}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			m := newMounter(t)
			if name == "a disk" {
				needsLoops(t)
			}
			one, two := podWith(), podWith(func(p *corev1.Pod) { p.UID = "uid-2" })
			first := mounted(t, m, one, v)
			put(t, first.Path, "data")
			m = again(m)
			have, err := m.Held(one.UID)
			if err != nil || have["v"] != first {
				t.Errorf("an agent that was restarted finds %+v, %v", have, err)
			}
			if same := mounted(t, m, one, v); same != first || content(t, same.Path) != "data" {
				t.Errorf("mounted again: %+v", same)
			}
			second := mounted(t, m, two, v)
			if second.Path == first.Path || content(t, second.Path) != "data" {
				t.Errorf("beside it: %+v", second)
			}
			release(t, m, one.UID)
			if content(t, second.Path) != "data" {
				t.Error("the end of one pod took the other's volume")
			}
			release(t, m, two.UID)
			if third := mounted(t, m, one, v); content(t, third.Path) != "data" {
				t.Error("the data is gone")
			}
		})
	}
}

func TestALimitedVolumeIsAsLargeAsItsClaim(t *testing.T) {
	m := newMounter(t)
	needsLoops(t)
	at := mounted(t, m, podWith(), localVolume(limited))
	var st unix.Statfs_t
	if err := unix.Statfs(at.Path, &st); err != nil || uint64(st.Bsize)*st.Blocks > 16<<20 {
		t.Errorf("%d blocks, %v", st.Blocks, err)
	}
	if info, err := os.Stat(at.Path); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("%v %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(at.Path, "large"), make([]byte, 17<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than the claim: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	m := newMounter(t)
	for name, v := range map[string]*Volume{"a directory": localVolume(), "a disk": localVolume(limited, func(pv *corev1.PersistentVolume) { pv.Spec.CSI.VolumeHandle = "disk" })} {
		if name == "a disk" {
			needsLoops(t)
		}
		writer, reader := podWith(func(p *corev1.Pod) { p.UID = types.UID("writer of " + name) }), podWith(func(p *corev1.Pod) { p.UID = types.UID("reader of " + name) })
		put(t, mounted(t, m, writer, v).Path, "data")
		v.ReadOnly = true
		at := mounted(t, m, reader, v)
		if content(t, at.Path) != "data" || !at.ReadOnly {
			t.Errorf("%s: %+v", name, at)
		}
		if err := os.WriteFile(filepath.Join(at.Path, "file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s was written: %v", name, err)
		}
	}
}

func TestADeviceIsSharedAndEndsWithItsLastPod(t *testing.T) {
	m := newMounter(t)
	needsLoops(t)
	v := localVolume(blockMode)
	one, two := podWith(asDevice), podWith(asDevice, func(p *corev1.Pod) { p.UID = "uid-2" })
	first, second := mounted(t, m, one, v), mounted(t, m, two, v)
	if first != second || !first.Device || !strings.HasPrefix(first.Path, "/dev/loop") {
		t.Errorf("%+v %+v", first, second)
	}
	if have, err := again(m).Held(one.UID); err != nil || have["v"] != first {
		t.Errorf("%+v %v", have, err)
	}
	disk := filepath.Join(m.Local.Dir, "pv", "disk")
	release(t, m, one.UID)
	if dev, err := loop.Find(disk); dev != first.Path || err != nil {
		t.Errorf("the other pod's device is %q, %v", dev, err)
	}
	release(t, m, two.UID)
	if dev, err := loop.Find(disk); dev != "" || err != nil {
		t.Errorf("left: %q, %v", dev, err)
	}
}

func TestRecordsComeFirst(t *testing.T) {
	m := newMounter(t)
	v := localVolume()
	// The volume cannot be made: a file stands where the directory is to be.
	if err := os.WriteFile(m.Local.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Mount(t.Context(), podWith(), v); err == nil {
		t.Fatal("no error")
	}
	if !m.Uses("pv") || m.Uses("other") {
		t.Error("the record of what was begun is missing")
	}
	if have, err := m.Held("uid-1"); len(have) != 0 || err != nil {
		t.Errorf("held: %v %v", have, err)
	}
	release(t, m, "uid-1")
	if m.Uses("pv") {
		t.Error("still used")
	}
}

func TestAMountPointTakesNoDataWithIt(t *testing.T) {
	m := newMounter(t)
	at := mounted(t, m, podWith(), localVolume())
	put(t, at.Path, "data")
	if err := m.Release(t.Context(), "uid-1"); err == nil {
		t.Error("released while it was mounted")
	}
	if content(t, at.Path) != "data" {
		t.Error("data was removed through the mount")
	}
}

func TestVolumesOfOtherNodesAndKindsAreRefused(t *testing.T) {
	m := newMounter(t)
	m.Node = func() *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "n1"}}}
	}
	elsewhere := func(pv *corev1.PersistentVolume) {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n2"}}}}}}}
	}
	source := func(s corev1.PersistentVolumeSource) func(*corev1.PersistentVolume) {
		return func(pv *corev1.PersistentVolume) { pv.Spec.PersistentVolumeSource = s }
	}
	for want, change := range map[string]func(*corev1.PersistentVolume){
		"no matching NodeSelectorTerms":                elsewhere,
		"driver name csi.example.com not found":        func(pv *corev1.PersistentVolume) { pv.Spec.CSI.Driver = "csi.example.com" },
		`volume handle "../x" cannot name a directory`: func(pv *corev1.PersistentVolume) { pv.Spec.CSI.VolumeHandle = "../x" },
		"no volume plugin matched":                     source(corev1.PersistentVolumeSource{ISCSI: &corev1.ISCSIPersistentVolumeSource{}}),
		"invalid path: /var/../etc":                    source(corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/var/../etc"}}),
		"stat /none: no such file":                     source(corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/none"}}),
		"/dev/null is not a block device":              source(corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/dev/null"}}),
	} {
		_, err := m.Mount(t.Context(), podWith(), localVolume(change))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := exec.LookPath("mount.nfs"); err != nil {
		_, err := m.Mount(t.Context(), podWith(), localVolume(source(corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/"}})))
		if err == nil || !strings.Contains(err.Error(), "needs mount.nfs on this machine") {
			t.Error(err)
		}
	}
}
