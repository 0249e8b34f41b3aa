package volume

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// File is one file of a volume.
type File struct {
	Data []byte
	Mode os.FileMode
	UID  int // owner, where not root
}

const dataLink = "..data"

// writeFiles makes dir show exactly files, all at once: they are written to a new directory, to which the symlink ..data is then
// swapped; dir's entries are symlinks through ..data. It reports whether anything changed. gid >= 0 owns the files.
func writeFiles(dir string, files map[string]File, gid int) (bool, error) {
	for name := range files {
		if !filepath.IsLocal(name) || strings.HasPrefix(name, "..") {
			return false, fmt.Errorf("file name %q is not allowed in a volume", name)
		}
	}
	if same(filepath.Join(dir, dataLink), files) {
		return false, nil
	}
	fresh, err := os.MkdirTemp(dir, "..knarr_")
	if err != nil {
		return false, err
	}
	if err := fill(fresh, files, gid); err != nil {
		os.RemoveAll(fresh)
		return false, err
	}
	old, _ := os.Readlink(filepath.Join(dir, dataLink))
	tmp := filepath.Join(dir, dataLink+"_tmp")
	_ = os.Remove(tmp)
	if err := os.Symlink(filepath.Base(fresh), tmp); err != nil {
		return false, err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return false, err
	}
	if err := links(dir, files); err != nil {
		return false, err
	}
	if old != "" {
		return true, os.RemoveAll(filepath.Join(dir, filepath.Base(old)))
	}
	return true, nil
}

// same reports whether the directory that ..data points to holds exactly files.
func same(data string, files map[string]File) bool {
	count := 0
	root, err := filepath.EvalSymlinks(data)
	if err != nil {
		return false
	}
	equal := true
	_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			equal = false
			return filepath.SkipAll
		}
		if d.IsDir() {
			return nil
		}
		count++
		rel, _ := filepath.Rel(root, p)
		f, ok := files[rel]
		have, err := os.ReadFile(p)
		if !ok || err != nil || !bytes.Equal(have, f.Data) {
			equal = false
			return filepath.SkipAll
		}
		return nil
	})
	return equal && count == len(files)
}

func fill(dir string, files map[string]File, gid int) error {
	for name, f := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, f.Data, 0o600); err != nil {
			return err
		}
		mode := f.Mode
		if gid >= 0 {
			mode |= 0o440
		}
		if gid >= 0 || f.UID > 0 {
			if err := os.Lchown(p, max(f.UID, 0), gid); err != nil {
				return err
			}
		}
		if err := os.Chmod(p, mode); err != nil { // not subject to umask
			return err
		}
	}
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		mode := os.FileMode(0o755)
		if gid >= 0 {
			if err := os.Lchown(p, -1, gid); err != nil {
				return err
			}
			mode |= os.ModeSetgid
		}
		return os.Chmod(p, mode)
	})
}

// links makes dir's entries symlinks to the top-level names of files, and removes others, such as a directory that stood in for a key which was
// missing when a container mounted it by subPath.
func links(dir string, files map[string]File) error {
	want := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		want[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		if want[e.Name()] && e.Type() == os.ModeSymlink {
			delete(want, e.Name())
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	for name := range want {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
