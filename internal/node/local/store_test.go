package local

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/localvolume"
)

// volume returns a local volume of node n1 for claim default/data.
func volume(handle string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: handle, Labels: map[string]string{localvolume.NodeLabel: "n1"}}, Spec: corev1.PersistentVolumeSpec{
		Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("16Mi")},
		PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
		AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: localvolume.Driver, VolumeHandle: handle}},
		ClaimRef:                      &corev1.ObjectReference{Namespace: "default", Name: "data", UID: "claim"},
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}}}},
	}}
	for _, f := range change {
		f(pv)
	}
	return pv
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestAVolumeIsMadeOnce(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "volumes")}
	first, err := s.Ensure(t.Context(), volume("pvc-1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(first.Dir, "file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(first.Dir); err != nil || st.Mode().Perm() != 0o777 {
		t.Errorf("%v %v", st, err)
	}
	second, err := s.Ensure(t.Context(), volume("pvc-1"))
	if err != nil || second != first {
		t.Errorf("%+v %v", second, err)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list["pvc-1"] != (About{Volume: "pvc-1", Namespace: "default", Claim: "data", Bytes: 16 << 20}) {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := s.Ensure(t.Context(), volume("pvc-1", block)); err == nil {
		t.Error("files became a device")
	}
}

func block(pv *corev1.PersistentVolume) { pv.Spec.VolumeMode = new(corev1.PersistentVolumeBlock) }

func limited(pv *corev1.PersistentVolume) {
	pv.Spec.CSI.VolumeAttributes = map[string]string{localvolume.LimitAttribute: localvolume.LimitLoop}
}

func TestDisksAreOfTheSizeAskedFor(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "volumes")}
	raw, err := s.Ensure(t.Context(), volume("pvc-raw", block))
	if err != nil || !raw.Raw {
		t.Fatal(raw, err)
	}
	places := []Place{raw}
	if _, err := exec.LookPath("mkfs.ext4"); err == nil {
		files, err := s.Ensure(t.Context(), volume("pvc-files", limited))
		if err != nil || files.Raw {
			t.Fatal(files, err)
		}
		places = append(places, files)
	}
	for _, p := range places {
		if st, err := os.Stat(p.Disk); err != nil || st.Size() != 16<<20 || p.Dir != "" {
			t.Errorf("%+v %v", p, err)
		}
	}
}

func TestBadVolumesAreRefused(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "volumes")}
	for want, change := range map[string]func(*corev1.PersistentVolume){
		`"quota" is unknown`:            func(pv *corev1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes = map[string]string{"limit": "quota"} },
		"spec.capacity.storage":         func(pv *corev1.PersistentVolume) { pv.Spec.Capacity = nil },
		"being deleted":                 func(pv *corev1.PersistentVolume) { pv.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} },
		`fsType "xfs": the file system`: func(pv *corev1.PersistentVolume) { limited(pv); pv.Spec.CSI.FSType = "xfs" },
	} {
		if _, err := s.Ensure(t.Context(), volume("pvc-1", change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("%v %v", list, err)
	}
}

func TestHandlesStayInside(t *testing.T) {
	dir := t.TempDir()
	s := &Store{Dir: filepath.Join(dir, "volumes")}
	if err := os.MkdirAll(filepath.Join(dir, "precious"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, handle := range []string{"../precious", "..", ".", "", "a/../../precious", "/precious"} {
		if _, err := s.Ensure(t.Context(), volume(handle)); err == nil {
			t.Errorf("%q was made", handle)
		}
		if _, err := s.Remove(handle, func() bool { return false }); err == nil {
			t.Errorf("%q was removed", handle)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"precious"}) {
		t.Errorf("there is %q", got)
	}
}

func TestWhatWasBegunIsSwept(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "volumes")}
	if err := s.Sweep(); err != nil { // there is no directory yet
		t.Fatal(err)
	}
	if _, err := s.Ensure(t.Context(), volume("pvc-1")); err != nil {
		t.Fatal(err)
	}
	// An agent died while it made one volume and removed another.
	for _, d := range []string{fresh + "17", gone + "pvc-0"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d, dataDir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.List(); len(list) != 1 || err != nil {
		t.Errorf("half a volume has a handle: %v %v", list, err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s.Dir); !slices.Equal(got, []string{"pvc-1"}) {
		t.Errorf("left: %q", got)
	}
}

func TestRemove(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "volumes")}
	if _, err := s.Ensure(t.Context(), volume("pvc-1")); err != nil {
		t.Fatal(err)
	}
	if done, err := s.Remove("pvc-1", func() bool { return true }); done || err != nil {
		t.Errorf("one in use was removed: %v", err)
	}
	for range 2 { // what is gone is gone
		if done, err := s.Remove("pvc-1", func() bool { return false }); !done || err != nil {
			t.Errorf("%v %v", done, err)
		}
	}
	if got := names(t, s.Dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// A disk that was replaced has none of the volumes that were made on the old one.
func TestALostVolumeIsNotMadeAnew(t *testing.T) {
	pv := volume("pvc-1")
	var marked []string
	s := &Store{Dir: filepath.Join(t.TempDir(), "volumes"), Mark: func(_ context.Context, pv *corev1.PersistentVolume) error {
		marked = append(marked, pv.Name)
		if len(marked) == 1 {
			return errors.New("the API is away")
		}
		localvolume.Mark(pv, time.Unix(0, 0))
		return nil
	}}
	if _, err := s.Ensure(t.Context(), pv); err == nil || !strings.Contains(err.Error(), "the API is away") {
		t.Errorf("a pod would get a volume of which nobody knows that it is made: %v", err)
	}
	for range 2 {
		if p, err := s.Ensure(t.Context(), pv); err != nil || p.Dir == "" {
			t.Errorf("%+v %v", p, err)
		}
	}
	if len(marked) != 2 {
		t.Errorf("marked %d times", len(marked))
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	_, err := s.Ensure(t.Context(), pv)
	if err == nil || !strings.Contains(err.Error(), "kubectl annotate pv pvc-1 local.knarr.io/made-") {
		t.Errorf("a lost volume: %v", err)
	}
	delete(pv.Annotations, localvolume.MadeAnnotation)
	if _, err := s.Ensure(t.Context(), pv); err != nil {
		t.Errorf("made anew as somebody said: %v", err)
	}
}
