package loop

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// file makes a sparse file of a mebibyte, and skips the test where there are no loop devices.
func file(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := DetachBelow(filepath.Dir(path)); err != nil {
			t.Error(err)
		}
	})
	return path
}

func attached(t *testing.T, path string, passing bool) *os.File {
	t.Helper()
	f, err := Attach(path, passing)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// gone waits until a file has no device: the kernel ends one a moment after its last use.
func gone(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		dev, err := Find(path)
		if err != nil {
			t.Fatal(err)
		}
		if dev == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s still has %s", path, dev)
		}
	}
}

func TestOneDevicePerFile(t *testing.T) {
	path := file(t)
	if dev, err := Find(path); dev != "" || err != nil {
		t.Fatalf("%q %v", dev, err)
	}
	one := attached(t, path, false)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	two := attached(t, link, false)
	if one.Name() != two.Name() {
		t.Errorf("two devices: %s, %s", one.Name(), two.Name())
	}
	if _, err := one.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
	one.Close()
	two.Close()
	if dev, err := Find(path); dev != one.Name() || err != nil {
		t.Errorf("it ended with its use: %q %v", dev, err)
	}
	for range 2 {
		if err := Detach(path); err != nil {
			t.Fatal(err)
		}
	}
	gone(t, path)
	if _, err := Attach(filepath.Join(t.TempDir(), "none"), false); !os.IsNotExist(err) {
		t.Errorf("a device without a file: %v", err)
	}
}

func TestADeviceGoesWithItsLastUse(t *testing.T) {
	path := file(t)
	f := attached(t, path, true)
	if dev, err := Find(path); dev != f.Name() || err != nil {
		t.Fatalf("%q %v", dev, err)
	}
	f.Close()
	gone(t, path)
}

func TestDetachBelow(t *testing.T) {
	path, other := file(t), file(t)
	attached(t, path, false).Close()
	attached(t, other, false).Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := DetachBelow(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if dev, err := Find(other); dev == "" || err != nil {
		t.Errorf("another directory's device ended, too: %v", err)
	}
	found := false
	if err := each(func(_, backing string) { found = found || backing == path }); err != nil || found {
		t.Errorf("still attached: %v", err)
	}
}
