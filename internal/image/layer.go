package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of every file in an image, so that the same content has the same digest.
var epoch = time.Unix(0, 0).UTC()

// tree is a layer being assembled: headers and content by cleaned absolute path.
type tree map[string]*node

type node struct {
	header  tar.Header
	content []byte
}

// add puts an entry at an absolute path, with the folders above it, in place of what was there.
func (t tree) add(p string, h tar.Header, content []byte) {
	p = path.Clean("/" + p)
	if p == "/" {
		return
	}
	if parent := path.Dir(p); parent != "/" && t[parent] == nil {
		t.add(parent, tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	h.Name = strings.TrimPrefix(p, "/")
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	h.Size = int64(len(content))
	// Only what a layer needs: no times, no names of users, no device numbers of the build machine's disk.
	t[p] = &node{content: content, header: tar.Header{
		Typeflag: h.Typeflag, Name: h.Name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
		ModTime: epoch, Format: tar.FormatPAX,
	}}
}

// resolve follows symbolic links inside the tree, in every part of p, and returns the path meant.
func (t tree) resolve(p string) (string, error) {
	done, rest := "/", strings.Split(strings.Trim(path.Clean(p), "/"), "/")
	for links := 0; len(rest) > 0; {
		next := path.Join(done, rest[0])
		rest = rest[1:]
		n := t[next]
		if n == nil || n.header.Typeflag != tar.TypeSymlink {
			done = next
			continue
		}
		if links++; links > 40 {
			return "", fmt.Errorf("%s: too many symbolic links", p)
		}
		target := n.header.Linkname
		if path.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(strings.Trim(path.Clean(target), "/"), "/"), rest...)
	}
	return done, nil
}

// addTar adds all entries of a tar stream.
func (t tree) addTar(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			content, err := io.ReadAll(tr)
			if err != nil {
				return err
			}
			t.add(h.Name, *h, content)
		case tar.TypeDir, tar.TypeSymlink:
			t.add(h.Name, *h, nil)
		case tar.TypeLink:
			h.Linkname = strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
			t.add(h.Name, *h, nil)
		default:
			return fmt.Errorf("%s: entries of type %q are not supported", h.Name, h.Typeflag)
		}
	}
}

// addPath adds a file or folder of the host at f.To.
func (t tree) addPath(from string, f File) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		to := path.Join(f.To, filepath.ToSlash(rel))
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			t.add(to, tar.Header{Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777, Uid: f.UID, Gid: f.GID}, nil)
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if fi.Mode()&0o100 != 0 {
			mode = 0o755
		}
		switch {
		case d.IsDir():
			t.add(to, tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, Uid: f.UID, Gid: f.GID}, nil)
		case fi.Mode().IsRegular():
			if f.Mode != 0 {
				mode = int64(f.Mode)
			}
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			t.add(to, tar.Header{Typeflag: tar.TypeReg, Mode: mode, Uid: f.UID, Gid: f.GID}, content)
		default:
			return fmt.Errorf("%s: neither a file, a folder nor a symbolic link", p)
		}
		return nil
	})
}

// layer makes an OCI layer of the tree.
func (t tree) layer() (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var paths, hard []string
	for p, n := range t {
		if n.header.Typeflag == tar.TypeLink {
			hard = append(hard, p) // after what they point to
			continue
		}
		paths = append(paths, p)
	}
	slices.Sort(paths)
	slices.Sort(hard)
	for _, p := range append(paths, hard...) {
		n := t[p]
		if err := w.WriteHeader(&n.header); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		if _, err := w.Write(n.content); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
