package containerd

import (
	"context"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/grpclog"
)

// readyFD is the file descriptor on which the child says that it serves, where its parent gave one (exec.Cmd.ExtraFiles).
const readyFD = 3

// Main is the child process: containerd, as `knarr containerd --config FILE` runs it. It returns nil after SIGTERM or
// SIGINT. Containers outlive it: each pod's shim is a process of its own.
func Main(args []string) error {
	flags := flag.NewFlagSet("containerd", flag.ContinueOnError)
	path := flags.String("config", "", "the configuration `file`, written by the node agent")
	// Read by the parent's next incarnation, off the command line.
	_ = flags.String(strings.TrimLeft(generationFlag, "-"), "", "a `hash` of the configuration, certificate and version")
	ready := flags.Bool("notify-ready", false, "write a line to file descriptor 3 when the CRI answers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *path == "" || flags.NArg() > 0 {
		return fmt.Errorf("usage: containerd --config FILE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	// Whoever read our output may be gone; writing to a closed pipe must not end a daemon.
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))

	config, err := loadConfig(ctx, *path)
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Dir(config.Root))
	if err != nil {
		return err
	}
	defer unlock()
	return serve(ctx, config, *ready)
}

// serve runs containerd until ctx is cancelled.
func serve(ctx context.Context, config *srvconfig.Config, notify bool) error {
	if err := server.CreateTopLevelDirectories(config); err != nil {
		return err
	}
	if err := mount.SetTempMountLocation(filepath.Join(config.Root, "tmpmounts")); err != nil {
		return fmt.Errorf("temporary mounts: %w", err)
	}
	warnings, err := mount.CleanupTempMounts(0)
	if err != nil {
		warnings = append(warnings, err)
	}
	for _, w := range warnings {
		log.G(ctx).WithError(w).Warn("a temporary mount stays behind")
	}
	// The plugins' context outlives ctx: on a stop they are closed in order, not all at once.
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	registry.Register(sweeping())
	s, err := server.New(live, config)
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	defer s.Stop()
	if err := s.Start(live); err != nil {
		return fmt.Errorf("start containerd's servers: %w", err)
	}
	s.Wait()
	if notify {
		f := os.NewFile(readyFD, "ready")
		fmt.Fprintln(f, "ready")
		f.Close()
	}
	<-ctx.Done()
	return nil
}

// loadConfig reads the file and refuses a configuration that could touch another containerd on this machine: one without
// an address of its own falls back to the default socket, and removes what is there.
func loadConfig(ctx context.Context, path string) (*srvconfig.Config, error) {
	config := &srvconfig.Config{}
	none := func() iter.Seq[plugin.Registration] {
		return slices.Values(registry.Graph(func(*plugin.Registration) bool { return false }))
	}
	if err := srvconfig.LoadConfigWithPlugins(ctx, path, none, config); err != nil {
		return nil, fmt.Errorf("containerd configuration %s: %w", path, err)
	}
	if config.Version != 4 {
		return nil, fmt.Errorf("containerd configuration %s: version is %d, want 4", path, config.Version)
	}
	for _, id := range []string{"io.containerd.server.v1.grpc", "io.containerd.server.v1.ttrpc"} {
		section, _ := config.Plugins[id].(map[string]any)
		address, _ := section["address"].(string)
		if err := checkAddress(address); err != nil {
			return nil, fmt.Errorf("containerd configuration %s: %s address: %w", path, id, err)
		}
	}
	if level := config.Debug.Level; level != "" {
		if err := log.SetLevel(level); err != nil {
			return nil, fmt.Errorf("containerd configuration %s: debug.level: %w", path, err)
		}
	}
	return config, nil
}

// checkAddress checks the address of a socket.
func checkAddress(address string) error {
	switch {
	case !filepath.IsAbs(address):
		return fmt.Errorf("%q is not an absolute path", address)
	case strings.HasPrefix(address, filepath.Dir(defaults.DefaultAddress)+"/"):
		return fmt.Errorf("%q belongs to the machine's own containerd", address)
	case len(address) > maxSocketPath:
		return fmt.Errorf("%q has %d bytes; a unix socket's path may have %d (sun_path, unix(7)): choose a shorter data directory",
			address, len(address), maxSocketPath)
	}
	return nil
}

// maxSocketPath is the size of sun_path less its terminating zero.
const maxSocketPath = 107

// lock takes the lock that makes the child the only containerd of its directory. Without it, a second one would wait
// for the metadata database for ever.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another containerd runs in %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// lockFile is held by the running child.
const lockFile = "lock"
