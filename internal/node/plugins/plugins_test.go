package plugins

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/knarr-io/knarr/internal/node/mount"
)

// plugin is one that registers.
type plugin struct {
	registration.UnimplementedRegistrationServer
	info registration.PluginInfo

	mu    sync.Mutex
	deaf  int // how often it does not answer
	heard []string
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deaf > 0 {
		p.deaf--
		return nil, os.ErrDeadlineExceeded
	}
	return &p.info, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, s.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

// handler notes what it is handed.
type handler struct {
	mu   sync.Mutex
	said []string
}

func (h *handler) note(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, what)
}

func (h *handler) all() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.said, ", ")
}

func (h *handler) Register(_ context.Context, p Plugin) error {
	h.note(p.Name + " at " + filepath.Base(p.Endpoint))
	return nil
}

func (h *handler) Forget(_ context.Context, socket string) { h.note("forget " + filepath.Base(socket)) }

func serve(t *testing.T, path string, p *plugin) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	registration.RegisterRegistrationServer(s, p)
	go s.Serve(l)
	stop = sync.OnceFunc(s.Stop)
	t.Cleanup(stop)
	return stop
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestRegistry(t *testing.T) {
	dir, err := os.MkdirTemp("", "reg") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &handler{}
	r := &Registry{Root: RootOf(dir), Log: slog.New(slog.DiscardHandler), Handlers: map[string]Handler{registration.CSIPlugin: h}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	defer func() { cancel(); <-done }()
	until(t, "the directories are there", func() bool {
		_, sockets := os.Stat(r.Root.Sockets())
		_, registry := os.Stat(r.Root.Registry())
		return sockets == nil && registry == nil
	})
	unknown := &plugin{info: registration.PluginInfo{Type: "Cake", Name: "cake"}}
	serve(t, filepath.Join(r.Root.Registry(), "cake.sock"), unknown)
	until(t, "a plugin of an unknown kind is refused", func() bool {
		unknown.mu.Lock()
		defer unknown.mu.Unlock()
		return len(unknown.heard) > 0 && strings.Contains(unknown.heard[0], `"Cake"`)
	})
	// One that does not answer at first is asked again; the socket it names is the one it is called by.
	disk := &plugin{deaf: 1, info: registration.PluginInfo{Type: registration.CSIPlugin, Name: "disk", Endpoint: "/var/lib/kubelet/plugins/disk/csi.sock"}}
	stop := serve(t, filepath.Join(r.Root.Registry(), "disk.sock"), disk)
	until(t, "the driver has registered", func() bool { return h.all() == "disk at csi.sock" })
	stop()
	until(t, "the driver is forgotten", func() bool { return h.all() == "disk at csi.sock, forget disk.sock" })
	serve(t, filepath.Join(r.Root.Registry(), "disk.sock"), &plugin{info: registration.PluginInfo{Type: registration.CSIPlugin, Name: "disk"}})
	until(t, "the driver is back", func() bool { return strings.HasSuffix(h.all(), "forget disk.sock, disk at disk.sock") })
}

func TestPathsOfDrivers(t *testing.T) {
	r := RootOf("/data")
	for path, want := range map[string]string{
		"/var/lib/kubelet": "/data/kubelet", "/var/lib/kubelet/": "/data/kubelet", "/var/lib/kubelet/plugins/x/csi.sock": "/data/kubelet/plugins/x/csi.sock",
		"/var/lib/kubelet-old": "/var/lib/kubelet-old", "/var/lib": "/var/lib", "/": "/", "/var/lib/kubelet/../secret": "/var/lib/kubelet/../secret",
	} {
		if got := r.Host(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	at := filepath.Join(r.Pods(), "uid")
	if got := r.For("/var/lib/kubelet/plugins/x/csi.sock", at); got != "/var/lib/kubelet/pods/uid" {
		t.Errorf("a driver in a pod is told %s", got)
	}
	if got := r.For("/data/kubelet/plugins/x/csi.sock", at); got != at {
		t.Errorf("a driver on the machine is told %s", got)
	}
	if got := Root("").Host(Seen); got != Seen {
		t.Errorf("without a directory: %s", got)
	}
}

// What a driver mounts in its own mount namespace has to be seen outside of it.
func TestTheRootIsShared(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := mount.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
	})
	r := RootOf(dir)
	for range 2 {
		if err := r.Prepare(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	mounts := 0
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); f[4] == string(r) {
			if mounts++; !strings.HasPrefix(f[6], "shared:") {
				t.Errorf("not shared: %s", line)
			}
		}
	}
	if mounts != 1 {
		t.Errorf("mounted %d times", mounts)
	}
}

// Data directories may be long, and the names of sockets may not.
func TestDialALongPath(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("x", 120))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	if err := os.Symlink(long, filepath.Join(short, "l")); err != nil {
		t.Fatal(err)
	}
	serve(t, filepath.Join(short, "l", "s"), &plugin{info: registration.PluginInfo{Name: "far"}})
	conn, err := Dial(filepath.Join(long, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	info, err := registration.NewRegistrationClient(conn).GetInfo(t.Context(), &registration.InfoRequest{})
	if err != nil || info.Name != "far" {
		t.Errorf("%v %v", info, err)
	}
}
