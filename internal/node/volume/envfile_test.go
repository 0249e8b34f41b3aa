package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Nothing outside the volume is read, whatever a container put in it, and nothing in it blocks the agent.
func TestEnvFilesStayInTheVolume(t *testing.T) {
	dir := t.TempDir()
	v := filepath.Join(dir, "volume")
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(v, "sub"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "secret"), []byte("K='secret'"), 0o600))
	must(os.WriteFile(filepath.Join(v, "sub", "env"), []byte("K='v'"), 0o600))
	must(os.Symlink("sub/env", filepath.Join(v, "inside")))
	must(os.Symlink("/sub/env", filepath.Join(v, "absolute")))
	must(os.Symlink("../secret", filepath.Join(v, "up")))
	must(os.Symlink(filepath.Join(dir, "secret"), filepath.Join(v, "away")))
	must(unix.Mkfifo(filepath.Join(v, "pipe"), 0o600))
	must(os.WriteFile(filepath.Join(v, "large"), make([]byte, maxEnvFile+1), 0o600))
	files := EnvFiles{"v": {HostPath: v}, "image": {Image: "img"}}
	for _, path := range []string{"sub/env", "inside", "absolute"} {
		if got, err := files.EnvFile("v", path); err != nil || string(got) != "K='v'" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{"none", "up", "away", "../secret"} {
		if got, err := files.EnvFile("v", path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v; want that there is none", path, got, err)
		}
	}
	for _, path := range []string{"pipe", "sub", "large"} {
		if _, err := files.EnvFile("v", path); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want another error", path, err)
		}
	}
	for _, volume := range []string{"none", "image"} {
		if _, err := files.EnvFile(volume, "env"); err == nil {
			t.Errorf("volume %s: no error", volume)
		}
	}
}
