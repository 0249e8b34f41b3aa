package containerd

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/image"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// TestMain makes the test executable its own child, as knarr is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "containerd" {
		if err := Main(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "containerd:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "supervise" {
		s, err := New(Options{DataDir: os.Args[2], Libexec: os.Args[3], Command: []string{os.Args[0], "containerd"}})
		if err == nil {
			err = s.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, "supervise:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const testImage = "docker.io/knarr/test:1"

// cgroupOf is below which a test's pods are put: its own, for Purge kills all that is in it.
func cgroupOf(dataDir string) string { return "/knarr-test-" + filepath.Base(dataDir) }

// e2eOptions gives a data directory of its own to a test that runs real containers, and purges it at the end.
func e2eOptions(t testing.TB) Options {
	t.Helper()
	if os.Getenv("KNARR_E2E") != "1" {
		t.Skip("starts containerd and real containers, which needs root and bin/libexec (make libexec): set KNARR_E2E=1")
	}
	libexec, err := filepath.Abs("../../../bin/libexec")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kn-") // t.TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Purge(context.Background(), dir, cgroupOf(dir)); err != nil {
			t.Errorf("Purge: %v", err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "containerd", "containerd.log"))
			t.Logf("containerd's log:\n%s", log)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return Options{DataDir: dir, Libexec: libexec, Command: []string{os.Args[0], "containerd"}, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// supervise runs a supervisor until the test calls stop, and returns when it is ready.
func supervise(t testing.TB, o Options) (s *Supervisor, stop func()) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, run(t, s)
}

// run runs s until the test calls stop, and returns when it is ready.
func run(t testing.TB, s *Supervisor) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	wait, cancelWait := context.WithTimeout(ctx, 30*time.Second)
	defer cancelWait()
	if err := s.WaitReady(wait); err != nil {
		t.Fatalf("WaitReady: %v", err)
	}
	return stop
}

func dial(t testing.TB, s *Supervisor) *runtime.CRI {
	t.Helper()
	c, err := runtime.NewCRI(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// importTestImage puts an image with busybox in.
func importTestImage(t testing.TB, s *Supervisor) {
	t.Helper()
	ctx := context.Background()
	built, err := image.Build(ctx, ".", &image.Spec{
		Names: []string{testImage},
		Layers: []image.Layer{{
			Debs:  &image.Debs{Packages: []string{"busybox-static"}},
			Dirs:  []image.Dir{{Path: "/tmp", Mode: 0o1777}},
			Links: map[string]string{"/bin/sh": "busybox", "/bin/sleep": "busybox", "/bin/cat": "busybox", "/bin/true": "busybox"},
		}},
		Config: image.Config{Entrypoint: []string{"/bin/sh"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := image.Write(&b, built); err != nil {
		t.Fatal(err)
	}
	store, err := image.OpenStore(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Import(ctx, &b, ""); err != nil {
		t.Fatal(err)
	}
}
