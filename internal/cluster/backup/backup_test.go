package backup_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/cluster/backup"
	"github.com/knarr-io/knarr/internal/pki"
)

// openEtcd starts the etcd of a data directory.
func openEtcd(t *testing.T, dataDir string) *cluster.Etcd {
	t.Helper()
	e, err := cluster.OpenEtcd(cluster.EtcdConfig{Dir: cluster.EtcdDir(dataDir), Name: "n1", PeerURL: "https://192.0.2.1:6443", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	if err := e.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

func settings() map[string]string {
	return map[string]string{"clusterCIDR": "10.244.0.0/16", "serviceCIDR": "10.96.0.0/16", "clusterDNS": "10.96.0.10", "clusterDomain": "cluster.test", "overlay": "vxlan"}
}

// take backs up the cluster of dataDir, by way of HTTP.
func take(t *testing.T, e *cluster.Etcd, dataDir, path string) backup.Manifest {
	t.Helper()
	h := backup.Handler(e.Client())
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			t.Error(err)
		}
	}))
	defer ts.Close()
	resp, err := ts.Client().Get(ts.URL + backup.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	m := backup.Manifest{Release: "test", Time: time.Unix(1_800_000_000, 0).UTC(), Settings: settings()}
	var spooled string
	if spooled, m.Etcd, err = backup.Spool(t.Context(), filepath.Dir(path), resp.Body); err != nil {
		t.Fatal(err)
	}
	keys, err := pki.ReadShared(cluster.PKIDir(dataDir))
	if err != nil {
		t.Fatal(err)
	}
	if err := backup.Write(path, m, keys, spooled); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(spooled); err != nil {
		t.Fatal(err)
	}
	return m
}

// newCluster returns a data directory with keys and an etcd that has seen a few writes.
func newCluster(t *testing.T) (string, *cluster.Etcd) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "old")
	if _, err := pki.Ensure(cluster.PKIDir(dir), pki.Params{}); err != nil {
		t.Fatal(err)
	}
	e := openEtcd(t, dir)
	for i := range 50 {
		if _, err := e.Client().Put(t.Context(), fmt.Sprintf("/registry/x/%d", i%10), strings.Repeat(fmt.Sprint(i), 100)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, e
}

func TestRestoredCluster(t *testing.T) {
	old, e := newCluster(t)
	file := filepath.Join(t.TempDir(), "cluster.knarr")
	m := take(t, e, old, file)
	if _, err := e.Client().Put(t.Context(), "/registry/later", "x"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v; want nobody else to read it", err, info.Mode())
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left beside it: %v %v", left, err)
	}
	if m.Etcd.Keys < 10 || m.Etcd.Revision < 50 {
		t.Errorf("the manifest: %+v", m.Etcd)
	}

	dir := filepath.Join(t.TempDir(), "new")
	if err := os.Mkdir(dir, 0o700); err != nil { // an empty one is fine
		t.Fatal(err)
	}
	if got, err := backup.Restore(file, dir); err != nil || got.Etcd != m.Etcd || !got.Time.Equal(m.Time) {
		t.Fatalf("%v %+v", err, got)
	}
	restored := openEtcd(t, dir)
	ctx := t.Context()
	all, err := restored.Client().Get(ctx, "/registry/x/", clientv3.WithPrefix())
	if err != nil || len(all.Kvs) != 10 || string(all.Kvs[9].Value) != strings.Repeat("49", 100) {
		t.Errorf("the keys: %v %d", err, len(all.Kvs))
	}
	if later, err := restored.Client().Get(ctx, "/registry/later"); err != nil || len(later.Kvs) != 0 {
		t.Errorf("what was written after the backup is there: %v", err)
	}
	if all.Header.Revision < m.Etcd.Revision+1_000_000 {
		t.Errorf("the revision is %d, that of the backup %d: watchers of the old cluster would not notice", all.Header.Revision, m.Etcd.Revision)
	}
	if _, err := restored.Client().Get(ctx, "/registry/x/1", clientv3.WithRev(m.Etcd.Revision+5)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a revision of the old cluster's: %v; want it to be compacted", err)
	}
	members, err := restored.Members(ctx)
	if err != nil || len(members) != 1 || members[0].URL != "https://192.0.2.1:6443" {
		t.Errorf("the members: %v %+v", err, members)
	}
	membership, err := cluster.LoadMembership(dir)
	if err != nil || membership == nil || membership.Begun() || membership.Settings["clusterDomain"] != "cluster.test" {
		t.Errorf("the settings: %v %+v", err, membership)
	}
	before, err := pki.ReadShared(cluster.PKIDir(old))
	if err != nil {
		t.Fatal(err)
	}
	after, err := pki.ReadShared(cluster.PKIDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	if len(before.Names()) != 5 {
		t.Errorf("the backup holds %v", before.Names())
	}
	for _, name := range before.Names() {
		if !bytes.Equal(before[name], after[name]) || len(after[name]) == 0 {
			t.Errorf("%s is not the cluster's", name)
		}
	}
	if _, err := pki.Ensure(cluster.PKIDir(dir), pki.Params{}); err != nil {
		t.Errorf("the keys cannot be used: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left beside it: %v %v", left, err)
	}
}

// repack returns a backup whose files are changed by change, which returns nil to leave one out.
func repack(t *testing.T, file []byte, change func(name string, data []byte) []byte) []byte {
	t.Helper()
	in, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	packed := gzip.NewWriter(&out)
	r, w := tar.NewReader(in), tar.NewWriter(packed)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if data = change(h.Name, data); data == nil {
			continue
		}
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), packed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWhatIsNotRestored(t *testing.T) {
	old, e := newCluster(t)
	file := filepath.Join(t.TempDir(), "cluster.knarr")
	take(t, e, old, file)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x40
		return b
	}
	without := func(name string) []byte {
		return repack(t, good, func(n string, data []byte) []byte {
			if n == name {
				return nil
			}
			return data
		})
	}
	type row struct {
		name string
		data []byte
		want string
	}
	rows := []row{
		{"an empty file", nil, "not a backup"},
		{"some text", []byte("apiVersion: v1\n"), "not a backup"},
		{"another archive", repack(t, good, func(n string, data []byte) []byte {
			if n == "manifest.json" {
				return nil
			}
			return data
		}), "not a backup"},
		{"a backup of a later release", repack(t, good, func(n string, data []byte) []byte {
			return bytes.Replace(data, []byte("knarr-backup/1"), []byte("knarr-backup/2"), 1)
		}), `format "knarr-backup/2"`},
		{"a snapshot that was changed", repack(t, good, func(n string, data []byte) []byte {
			if n == "etcd.snapshot" {
				data[len(data)/2] ^= 1
			}
			return data
		}), "checksum"},
		{"no snapshot", without("etcd.snapshot"), "etcd.snapshot is missing"},
		{"no key of the authority", without("pki/ca.key"), "pki/ca.key is missing"},
		{"half a file", good[:len(good)/2], "damaged: it ends too early"},
		{"all but the last byte", good[:len(good)-1], "damaged: it ends too early"},
		{"ten bytes", good[:10], "not a backup"},
	}
	for _, part := range []int{4, 3, 2} {
		rows = append(rows, row{fmt.Sprintf("a wrong bit at 1/%d", part), flip(len(good) / part), ""})
	}
	rows = append(rows, row{"a wrong bit in the checksum", flip(len(good) - 6), "damaged"})
	for _, tc := range rows {
		dir := t.TempDir()
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, tc.data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := backup.Restore(bad, filepath.Join(dir, "data"))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", tc.name, err, tc.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%s left %v (%v)", tc.name, left, err)
		}
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Restore(file, full); err == nil || !strings.Contains(err.Error(), "not empty (it has mine)") {
		t.Errorf("a directory that holds something: %v", err)
	}
	if _, err := backup.Restore(filepath.Join(full, "none"), filepath.Join(full, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
}

func TestSnapshotThatBreaksOff(t *testing.T) {
	_, e := newCluster(t)
	s, err := e.Client().Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	whole, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"half": bytes.NewReader(whole[:len(whole)/2]), "nothing": bytes.NewReader(nil), "an error": io.MultiReader(bytes.NewReader(whole), brokenReader{}),
	} {
		dir := t.TempDir()
		if _, _, err := backup.Spool(t.Context(), dir, r); err == nil {
			t.Errorf("%s was taken for a snapshot", name)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s left %v (%v)", name, left, err)
		}
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := backup.Spool(stopped, t.TempDir(), bytes.NewReader(whole)); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
