package containerd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// required are the executables without which no container runs.
var required = [...]string{"runc", "containerd-shim-runc-v2"}

// notUnpacked come with Knarr but are of no use to the runtime: kubectl is run where it lies, pause goes into an image.
var notUnpacked = map[string]bool{"kubectl": true, "pause": true}

// Check reports whether a runtime could be set up in dataDir with the executables in libexec (empty: beside this one). It makes
// nothing: who is to start a whole server asks it first.
func Check(dataDir, libexec string) error {
	o := &Options{DataDir: dataDir}
	if err := checkAddress(o.Endpoint() + ".ttrpc"); err != nil {
		return fmt.Errorf("runtime socket: %w", err)
	}
	if libexec == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find Knarr's executable: %w", err)
		}
		libexec = filepath.Join(filepath.Dir(self), "libexec")
	}
	return checkLibexec(libexec)
}

func checkLibexec(libexec string) error {
	for _, name := range required {
		_, err := os.Stat(filepath.Join(libexec, name))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not in %s: build it (make build), or say where it is (--libexec)", name, libexec)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Unpack copies the executables that come with Knarr to where a node's runtime finds them. A node keeps copies of its
// own because Knarr may be replaced while containers run, and several nodes of a machine may run different versions.
// What is there already with the same size and time is left; the others are replaced in one step, also while they run.
func Unpack(libexec, bin string) error {
	if err := checkLibexec(libexec); err != nil {
		return err
	}
	entries, err := os.ReadDir(libexec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 || notUnpacked[e.Name()] {
			continue
		}
		if err := copyFile(filepath.Join(libexec, e.Name()), filepath.Join(bin, e.Name()), fi); err != nil {
			return fmt.Errorf("unpack %s: %w", e.Name(), err)
		}
	}
	return nil
}

func copyFile(from, to string, fi fs.FileInfo) error {
	if have, err := os.Stat(to); err == nil && have.Size() == fi.Size() && have.ModTime().Equal(fi.ModTime()) {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".unpack-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) // fails once it is renamed
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(0o755), out.Close())
	if err != nil {
		return err
	}
	if err := os.Chtimes(out.Name(), fi.ModTime(), fi.ModTime()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}
