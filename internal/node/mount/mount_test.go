package mount

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
}

// dirs makes two directories that stand for a source and a target.
func dirs(t *testing.T) (source, target string) {
	t.Helper()
	dir := t.TempDir()
	source, target = filepath.Join(dir, "source"), filepath.Join(dir, "below", "target with blank")
	for _, d := range []string{source, target} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	return source, target
}

func TestBindMountsAreFoundAgain(t *testing.T) {
	needsRoot(t)
	source, target := dirs(t)
	if Is(target) || Is(filepath.Join(target, "none")) {
		t.Error("nothing is mounted yet")
	}
	for range 2 { // one above the other
		if err := Bind(source, target, 0); err != nil {
			t.Fatal(err)
		}
	}
	if !Is(target) {
		t.Error("a mount within one file system is not seen")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(target), link); err != nil {
		t.Fatal(err)
	}
	// A directory in it that a process works in does not hold it.
	busy, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := UnmountBelow(link); err != nil {
		t.Fatal(err)
	}
	if Is(target) {
		t.Error("still mounted")
	}
	if b, err := os.ReadFile(filepath.Join(source, "file")); err != nil || string(b) != "data" {
		t.Errorf("%q %v", b, err)
	}
}

func TestReadOnlyBind(t *testing.T) {
	needsRoot(t)
	source, target := dirs(t)
	if err := Bind(source, target, unix.MS_RDONLY|unix.MS_NOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := UnmountBelow(filepath.Dir(target)); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(target, "file"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("written through the mount: %v", err)
	}
	if err := os.WriteFile(filepath.Join(source, "other"), nil, 0o644); err != nil {
		t.Errorf("the source became read-only: %v", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil || st.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("flags %x %v", st.Flags, err)
	}
	if err := Bind(filepath.Join(source, "none"), target, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there was mounted: %v", err)
	}
}

func TestOptions(t *testing.T) {
	flags, data := Options([]string{"ro,noexec", "hard", "nfsvers=4.1", "noexec", "exec", "defaults", ""})
	if flags != unix.MS_RDONLY || !slices.Equal(data, []string{"hard", "nfsvers=4.1"}) {
		t.Errorf("%x %q", flags, data)
	}
}
