package backup

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/pki"
)

// Path is where a server streams a snapshot of etcd to the administrator.
const Path = "/knarr/v1/snapshot"

const (
	// snapshotTime bounds one snapshot.
	snapshotTime = 30 * time.Minute
	// revisionBump is added to the revisions of a restored cluster: more than any cluster gets ahead of its backup (etcd's own advice).
	revisionBump = 1_000_000_000
	// placeholder is where a restored member is said to be reached, until its server starts and knows better.
	placeholder, placeholderName = "https://127.0.0.1:6443", "restored"
)

// flateError is a wrong byte in compressed data.
type flateError = flate.CorruptInputError

// Handler answers with a snapshot of etcd that holds whatever had been written when it was asked for.
func Handler(c *clientv3.Client) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != http.MethodGet {
			return apierrors.NewMethodNotSupported(schema.GroupResource{Resource: strings.TrimPrefix(Path, "/")}, strings.ToLower(r.Method))
		}
		// It may take longer than requests usually may.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), snapshotTime)
		defer cancel()
		if _, err := c.Get(r.Context(), "/", clientv3.WithCountOnly()); err != nil { // this member has seen everything
			return apierrors.NewServiceUnavailable(fmt.Sprintf("etcd does not answer: %v", err))
		}
		s, err := c.Snapshot(ctx)
		if err != nil {
			return apierrors.NewServiceUnavailable(fmt.Sprintf("etcd made no snapshot: %v", err))
		}
		defer s.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "no-store")
		if _, err := io.Copy(w, s); err != nil {
			panic(http.ErrAbortHandler) // the client must see that this is not all
		}
		return nil
	}
}

// inspect checks that a snapshot is whole and returns what is in it.
func inspect(path string) (status snapshot.Status, err error) {
	if err := checkDigest(path); err != nil { // first: the database ends the process over data that is none
		return status, err
	}
	if status, err = snapshot.NewV3(zap.NewNop()).Status(path); err != nil {
		err = fmt.Errorf("%w: etcd's snapshot cannot be read: %v", ErrDamaged, err)
	}
	return status, err
}

// checkDigest compares a snapshot with the SHA-256 that etcd puts at its end.
func checkDigest(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size() - sha256.Size
	if size <= 0 {
		return fmt.Errorf("%w: etcd's snapshot has only %d bytes", ErrDamaged, info.Size())
	}
	sum, want := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(sum, f, size); err != nil {
		return err
	}
	if _, err := io.ReadFull(f, want); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return fmt.Errorf("%w: etcd's snapshot does not agree with its checksum, or has not arrived in full", ErrDamaged)
	}
	return nil
}

// Restore makes dataDir, which must be empty or not there, that of a server with the cluster in the backup at path.
func Restore(path, dataDir string) (m Manifest, err error) {
	dataDir = filepath.Clean(dataDir)
	if err := checkEmpty(dataDir); err != nil {
		return m, err
	}
	if err := os.MkdirAll(filepath.Dir(dataDir), 0o755); err != nil {
		return m, fmt.Errorf("the data directory: %w", err)
	}
	// All is made beside it, so that it is there whole or not at all.
	work, err := os.MkdirTemp(filepath.Dir(dataDir), "."+filepath.Base(dataDir)+"-restore-*")
	if err != nil {
		return m, fmt.Errorf("the data directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	c, err := unpack(path, work)
	if err != nil {
		return m, err
	}
	if _, err := inspect(c.snapshot); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	made := filepath.Join(work, "data")
	if err := c.fill(made); err != nil {
		return m, fmt.Errorf("restoring %s: %w", path, err)
	}
	if err := os.Chmod(made, 0o755); err != nil {
		return m, err
	}
	if err := os.Remove(dataDir); err != nil && !errors.Is(err, os.ErrNotExist) { // succeeds only with an empty one
		return m, fmt.Errorf("the data directory: %w", err)
	}
	if err := os.Rename(made, dataDir); err != nil {
		return m, fmt.Errorf("the data directory: %w", err)
	}
	return c.Manifest, nil
}

func checkEmpty(dir string) error {
	list, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the data directory: %w", err)
	case len(list) > 0:
		return fmt.Errorf("%s is not empty (it has %s): give another --data-dir, or run knarr down --delete-data first", dir, list[0].Name())
	}
	return nil
}

// fill makes the data directory of a server.
func (c *contents) fill(dir string) error {
	if err := pki.Install(cluster.PKIDir(dir), c.keys); err != nil {
		return err
	}
	// Another token makes another etcd cluster: a server of the old one that is still about is none of its members.
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: c.snapshot, OutputDataDir: cluster.EtcdDir(dir), Name: placeholderName, PeerURLs: []string{placeholder},
		InitialCluster: placeholderName + "=" + placeholder, InitialClusterToken: rand.Text(),
		RevisionBump: revisionBump, MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("%w: etcd: %v", ErrDamaged, err)
	}
	if len(c.Settings) == 0 {
		return nil
	}
	return cluster.Restored(dir, c.Settings)
}
