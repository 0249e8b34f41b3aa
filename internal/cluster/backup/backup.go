// Package backup is a cluster in one file: what etcd holds, and the keys that its servers share.
//
// What flows through it: a running server streams a snapshot of etcd ([Handler]), which is checked ([Spool]) and packed with the keys and a
// [Manifest] into a gzipped tar file ([Write]); [Restore] makes a new server's data directory of such a file, a cluster of one server whose revisions
// begin far beyond those of the snapshot, so that whoever watched the old cluster starts over instead of seeing time go backwards. What
// must stay true: a file is there whole or not at all, readable by its owner only; nothing is restored that does not agree with its checksums; a directory
// that holds something is never touched. Tests: TestRestoredCluster, TestWhatIsNotRestored, TestSnapshotThatBreaksOff.
package backup

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/knarr-io/knarr/internal/pki"
)

// format is the version of the file; another one is refused.
const format = "knarr-backup/1"

// Names in the archive, in this order.
const (
	manifestName = "manifest.json"
	keysDir      = "pki/"
	// snapshotName is a snapshot as etcdctl snapshot save makes it, its checksum at the end.
	snapshotName = "etcd.snapshot"
)

// Manifest says what a backup holds.
type Manifest struct {
	Format string `json:"format"`
	// Release is the Knarr that made it.
	Release string    `json:"release"`
	Time    time.Time `json:"time"`
	// Cluster is the fingerprint of the cluster's authority.
	Cluster string `json:"cluster"`
	// Settings are the cluster's, as its machines share them (cluster.AgentSettings).
	Settings map[string]string `json:"settings,omitempty"`
	Etcd     Snapshot          `json:"etcd"`
}

// Snapshot describes a snapshot of etcd.
type Snapshot struct {
	Revision int64  `json:"revision"`
	Keys     int    `json:"keys"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
}

// Write packs the snapshot in file spooled with keys into a backup at path, which replaces what is there. It fills in what m says about
// the format.
func Write(path string, m Manifest, keys pki.Shared, spooled string) (err error) {
	m.Format = format
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // its mode is 0600
	if err != nil {
		return fmt.Errorf("writing the backup: %w", err)
	}
	defer func() {
		if err != nil {
			_ = out.Close()
			_ = os.Remove(out.Name())
			err = fmt.Errorf("writing the backup: %w", err)
		}
	}()
	packed, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w := tar.NewWriter(packed)
	small := func(name string, data []byte) error {
		if err := w.WriteHeader(header(name, int64(len(data)), m.Time)); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	if err := small(manifestName, append(manifest, '\n')); err != nil {
		return err
	}
	for _, name := range keys.Names() {
		if err := small(keysDir+name, keys[name]); err != nil {
			return err
		}
	}
	if err := copyIn(w, spooled, m); err != nil {
		return err
	}
	for _, finish := range []func() error{w.Close, packed.Close, out.Sync, out.Close} {
		if err := finish(); err != nil {
			return err
		}
	}
	return os.Rename(out.Name(), path)
}

func copyIn(w *tar.Writer, spooled string, m Manifest) error {
	f, err := os.Open(spooled)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(header(snapshotName, m.Etcd.Size, m.Time)); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

func header(name string, size int64, at time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: at, Format: tar.FormatPAX}
}

// Spool writes a snapshot to a new file in dir and returns the file's name and what is in it. A snapshot that is not whole is an error.
func Spool(ctx context.Context, dir string, snapshot io.Reader) (path string, s Snapshot, err error) {
	f, err := os.CreateTemp(dir, ".knarr-snapshot-*")
	if err != nil {
		return "", s, fmt.Errorf("room for the snapshot: %w", err)
	}
	defer func() {
		_ = f.Close() // it is read again, and checked
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	if s.Size, err = io.Copy(io.MultiWriter(f, sum), snapshot); err != nil {
		return "", s, fmt.Errorf("receiving the snapshot: %w", err)
	}
	s.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if err := ctx.Err(); err != nil {
		return "", s, err
	}
	status, err := inspect(f.Name())
	if err != nil {
		return "", s, err
	}
	s.Revision, s.Keys = status.Revision, status.TotalKey
	return f.Name(), s, nil
}

// ErrNotABackup says that a file was not made by knarr backup.
var ErrNotABackup = errors.New("this is not a backup made by knarr backup")

// ErrDamaged says that a backup is not what was written once.
var ErrDamaged = errors.New("the backup is damaged")

// contents is a backup, unpacked.
type contents struct {
	Manifest
	keys     pki.Shared
	snapshot string // file
}

// unpack reads the backup at path; the snapshot goes to a file in dir.
func unpack(path, dir string) (*contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	packed, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, ErrNotABackup)
	}
	c := &contents{keys: pki.Shared{}}
	if err := c.read(tar.NewReader(packed), dir); err != nil {
		return nil, fmt.Errorf("%s: %w", path, explain(err))
	}
	if _, err := io.Copy(io.Discard, packed); err != nil { // the checksum stands at the end
		return nil, fmt.Errorf("%s: %w", path, explain(err))
	}
	return c, c.complete(path)
}

// explain tells a file that ends too early from one with wrong bytes.
func explain(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it ends too early", ErrDamaged)
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, tar.ErrHeader), errors.As(err, new(flateError)):
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return err
}

// read takes what is in the archive.
func (c *contents) read(r *tar.Reader, dir string) error {
	const most = 1 << 20 // of a file that is not the snapshot
	for first := true; ; first = false {
		h, err := r.Next()
		if first && (err != nil || h.Name != manifestName) {
			return ErrNotABackup
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Name == snapshotName {
			if err := c.takeSnapshot(r, dir); err != nil {
				return err
			}
			continue
		}
		data, err := io.ReadAll(io.LimitReader(r, most))
		if err != nil {
			return err
		}
		if h.Name != manifestName {
			c.keys[filepath.Base(h.Name)] = data
			continue
		}
		if err := json.Unmarshal(data, &c.Manifest); err != nil {
			return fmt.Errorf("%w: %s: %v", ErrDamaged, manifestName, err)
		}
		if c.Format != format {
			return fmt.Errorf("it has format %q, and this knarr reads %q: use the release that made it (%s) or a newer one", c.Format, format, c.Release)
		}
	}
}

func (c *contents) takeSnapshot(r io.Reader, dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, snapshotName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	c.snapshot = f.Name()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, sum), r); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != c.Etcd.SHA256 {
		return fmt.Errorf("%w: the checksum of %s is %s, the manifest says %s", ErrDamaged, snapshotName, got, c.Etcd.SHA256)
	}
	return f.Sync()
}

// complete returns an error unless everything is there that a server needs.
func (c *contents) complete(path string) error {
	if c.snapshot == "" {
		return fmt.Errorf("%s: %w: %s is missing", path, ErrDamaged, snapshotName)
	}
	if name := c.keys.Missing(); name != "" {
		return fmt.Errorf("%s: %w: %s%s is missing", path, ErrDamaged, keysDir, name)
	}
	return nil
}
