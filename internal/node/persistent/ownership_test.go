package persistent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// look returns group and mode of a file.
func look(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %o", st.Gid, st.Mode&0o7777)
}

func group(gid int64, policy corev1.PodFSGroupChangePolicy) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &gid, FSGroupChangePolicy: &policy}
	}
}

func TestFSGroupOwnsTheVolume(t *testing.T) {
	m := newMounter(t)
	v := localVolume()
	at := mounted(t, m, podWith(), v).Path
	outside := filepath.Join(t.TempDir(), "outside")
	for path, mode := range map[string]os.FileMode{filepath.Join(at, "dir", "run"): 0o4750, filepath.Join(at, "plain"): 0o600, outside: 0o600} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(path, uint32(mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(at, "link")); err != nil {
		t.Fatal(err)
	}
	release(t, m, "uid-1")
	mounted(t, m, podWith(group(1234, corev1.FSGroupChangeAlways)), v)
	for path, want := range map[string]string{at: "1234 2777", filepath.Join(at, "dir"): "1234 2770", filepath.Join(at, "dir", "run"): "1234 4770",
		filepath.Join(at, "plain"): "1234 660", outside: "0 600", filepath.Join(at, "link"): "1234 777"} {
		if got := look(t, path); got != want {
			t.Errorf("%s is %s, not %s", path, got, want)
		}
	}
}

func TestFSGroupChangePolicy(t *testing.T) {
	m := newMounter(t)
	v := localVolume()
	at := mounted(t, m, podWith(group(1234, corev1.FSGroupChangeAlways)), v).Path
	file := filepath.Join(m.Local.Dir, "pv", "data", "file")
	put(t, at, "data")
	if err := os.Chown(file, 0, 7); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		title  string
		gid    int64
		policy corev1.PodFSGroupChangePolicy
		want   string
	}{
		{"the root is right", 1234, corev1.FSGroupChangeOnRootMismatch, "7 644"},
		{"always", 1234, corev1.FSGroupChangeAlways, "1234 664"},
		{"the root is another group's", 5, corev1.FSGroupChangeOnRootMismatch, "5 664"},
	} {
		release(t, m, "uid-1")
		mounted(t, m, podWith(group(tc.gid, tc.policy)), v)
		if got := look(t, file); got != tc.want {
			t.Errorf("%s: %s, not %s", tc.title, got, tc.want)
		}
	}
	// A pod that has the volume already keeps the group; one that only reads changes nothing.
	other := podWith(group(9, corev1.FSGroupChangeAlways), func(p *corev1.Pod) { p.UID = "uid-2" })
	mounted(t, m, other, v)
	if got := look(t, file); got != "5 664" {
		t.Errorf("under another pod: %s", got)
	}
	release(t, m, "uid-1")
	release(t, m, "uid-2")
	v.ReadOnly = true
	mounted(t, m, other, v)
	if got := look(t, file); got != "5 664" {
		t.Errorf("read-only: %s", got)
	}
}
