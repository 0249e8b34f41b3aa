package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/knarr-io/knarr/internal/store"
)

// smallDisk mounts a file system of so many bytes.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("knarr-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// fill takes all that is left of a disk but for spare bytes, and returns the file that has it.
func fill(t *testing.T, dir string, spare int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "somebody-elses"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for had := int64(0); ; { // etcd takes some at the same time
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			t.Fatal(err)
		}
		size := int64(fs.Bavail)*fs.Bsize - spare
		if size <= 0 {
			break
		}
		switch err := unix.Fallocate(int(f.Fd()), 0, had, size); {
		case err == nil:
			had += size
		case !errors.Is(err, unix.ENOSPC):
			t.Fatal(err)
		}
	}
	return f.Name()
}

// lines is a log that tests read.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(b) }
func (l *lines) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

var _ io.Writer = (*lines)(nil)

// onDisk starts an etcd in dir and looks after it until the returned function is called.
func onDisk(t *testing.T, dir string, quota int64) (_ *Etcd, log *lines, stop func()) {
	t.Helper()
	log = &lines{}
	e, err := OpenEtcd(EtcdConfig{Dir: dir + "/etcd", Name: "n1", PeerURL: "http://127.0.0.1:1", QuotaBytes: quota, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait(); e.Close() })
	t.Cleanup(stop)
	return e, log, stop
}

// eventually waits for a condition.
func eventually(t *testing.T, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

const smallDiskSize = 640 << 20

func TestWritesGoOnOnceThereIsRoom(t *testing.T) {
	dir := smallDisk(t, smallDiskSize)
	e, log, _ := onDisk(t, dir, 0)
	if err := e.Space().Admit(false); err != nil {
		t.Fatalf("with room: %v", err)
	}
	others := fill(t, dir, 0)
	eventually(t, 5*time.Second, "the refusal", func() bool { return e.Space().Admit(false) != nil })
	if err := e.Space().Admit(false); !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "0 MB left") {
		t.Errorf("the refusal does not name the disk and what it has left: %v", err)
	}
	if err := e.Space().Check(t.Context()); err == nil {
		t.Error("the health check passes on a full disk")
	}
	if err := e.Space().Admit(true); err != nil {
		t.Errorf("a lease is refused: %v", err)
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the log line that writes are taken again, though nobody writes", func() bool { return strings.Contains(log.String(), "takes all writes again") })
	if err := e.Space().Admit(false); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "the disk is full") || !strings.Contains(log.String(), dir) {
		t.Errorf("the log does not say that the disk is full:\n%s", log)
	}
}

func TestTheDatabaseOwnsTheBlocksOfItsNextWrites(t *testing.T) {
	dir := smallDisk(t, smallDiskSize)
	e, _, stop := onDisk(t, dir, 0)
	if err := e.Space().Admit(false); err != nil {
		t.Fatal(err)
	}
	fill(t, dir, 0)
	// 8 MB of leases, as etcd keeps their history, onto a disk without a free block.
	value := strings.Repeat("x", 1000)
	ctx := t.Context()
	for i := range 8000 {
		if err := e.Space().Admit(true); err != nil {
			t.Fatalf("after %d writes: %v", i, err)
		}
		if _, err := e.Client().Put(ctx, fmt.Sprintf("/registry/leases/%d", i%10), value); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	// Nor does it need a free block to start.
	e, _, _ = onDisk(t, dir, 0)
	if got, err := e.Client().Get(ctx, "/registry/leases/9"); err != nil || len(got.Kvs) != 1 || got.Kvs[0].Version != 800 {
		t.Errorf("started on a full disk: %v %v", got, err)
	}
	if err := e.Space().Admit(false); err == nil {
		t.Error("started on a full disk, it takes writes")
	}
	if _, err := e.Client().Put(ctx, "/registry/leases/9", value); err != nil {
		t.Error(err)
	}
	eventually(t, 5*time.Second, "the reserve taken back", func() bool { _, err := os.Stat(filepath.Join(dir, "etcd-reserve")); return err == nil })
}

// TestTheReserveLetsTheLogGoOn writes more to a full disk than a file of the log takes.
func TestTheReserveLetsTheLogGoOn(t *testing.T) {
	dir := smallDisk(t, smallDiskSize)
	e, log, _ := onDisk(t, dir, 0)
	reserve := filepath.Join(dir, "etcd-reserve")
	eventually(t, 5*time.Second, "the reserve", func() bool { _, err := os.Stat(reserve); return err == nil })
	others := fill(t, dir, 0)
	value := strings.Repeat("x", 500_000)
	ctx, written := t.Context(), 0
	segments := func() int {
		list, err := filepath.Glob(dir + "/etcd/member/wal/*.wal")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	compact := func(rev int64) {
		if _, err := e.Client().Compact(ctx, rev); err != nil {
			t.Fatal(err)
		}
		e.server.Server.Backend().ForceCommit()
	}
	for segments() < 2 {
		if err := e.Space().Admit(true); err != nil {
			t.Fatalf("after %d bytes: %v", written, err)
		}
		resp, err := e.Client().Put(ctx, "/registry/leases/x", value)
		if err != nil {
			t.Fatal(err)
		}
		if written += len(value); written%(4*len(value)) == 0 {
			compact(resp.Header.Revision)
		}
		if written > int(2*wal.SegmentSizeBytes) {
			t.Fatal("the log has not begun another file")
		}
		time.Sleep(2 * time.Millisecond)
	}
	if _, err := os.Stat(reserve); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reserve is still there: %v\n%s", err, log)
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "writing", func() bool { return e.Space().Admit(false) == nil })
	eventually(t, 5*time.Second, "the reserve made anew", func() bool { _, err := os.Stat(reserve); return err == nil })
}

func TestADatabaseAtItsQuotaIsShrunkWhenThingsAreDeleted(t *testing.T) {
	e, log, _ := onDisk(t, t.TempDir(), 32<<20)
	ctx := t.Context()
	value := []byte(strings.Repeat("x", 1<<20))
	s := store.NewEtcd(e.Client())
	n := 0
	for ; e.Space().Admit(false) == nil; n++ {
		if _, err := s.Commit(ctx, []store.Op{{Key: fmt.Sprintf("/registry/%d", n), Value: value, If: store.Any}}); err != nil {
			t.Fatalf("write %d: %v\n%s", n, err, log)
		}
		time.Sleep(110 * time.Millisecond)
	}
	if n < 20 {
		t.Errorf("refused after %d MB of 32", n)
	}
	if err := e.Space().Admit(false); err == nil || !strings.Contains(err.Error(), "of the 32 MB") {
		t.Errorf("the refusal is %v", err)
	}
	for i := range n {
		if _, err := s.Commit(ctx, []store.Op{{Key: fmt.Sprintf("/registry/%d", i), If: store.Any}}); err != nil {
			t.Fatalf("deleting: %v", err)
		}
	}
	rev, err := s.Revision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Client().Compact(ctx, rev); err != nil { // which etcd does each five minutes
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "writing", func() bool { return e.Space().Admit(false) == nil })
	if !strings.Contains(log.String(), "the database has been shrunk") {
		t.Errorf("the log says\n%s", log)
	}
}

func TestEtcdsOwnRefusalIsSaidInWords(t *testing.T) {
	e, _, _ := onDisk(t, t.TempDir(), 8<<20)
	s := store.NewEtcd(e.Client())
	value := []byte(strings.Repeat("x", 1<<20))
	for i := 0; ; i++ {
		_, err := s.Commit(t.Context(), []store.Op{{Key: fmt.Sprintf("/registry/%d", i), Value: value, If: store.Any}})
		if errors.Is(err, store.ErrFull) {
			break
		}
		if err != nil || i > 200 {
			t.Fatalf("write %d: %v", i, err)
		}
	}
}
