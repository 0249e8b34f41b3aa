// Package containerd runs the container runtime that comes inside Knarr: containerd as a library, in a child process of
// the same executable.
//
// What flows through it: [Options] become a configuration file and a directory below the node's data directory;
// [Supervisor.Run] starts the child, or adopts the one that an earlier Knarr left, and keeps it running; the agent talks
// to it at [Options.Endpoint] over CRI. [Main] is the child's side. [Purge] removes all that a data directory's runtime has
// left on the machine.
//
// What must stay true: nothing outside the data directory is written or listened on (but see [Options.ShimSockets]);
// another containerd on the machine is never touched; containers outlive Knarr and the child alike, whichever is killed.
// Tests: TestContainersOutliveTheRuntime, TestAdoptsRuntimeOfKilledKnarr, TestShimSockets, TestPurge, TestSweepsOnceRemovalsHaveComeToRest.
package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// PauseImage is the image of the process that holds a pod's namespaces. It is assembled by Knarr and never pulled.
const PauseImage = "docker.io/knarr/pause:1"

// Options say where and how the runtime runs.
type Options struct {
	// DataDir is the node's data directory, absolute. All paths below are under it unless given.
	DataDir string
	// Libexec is the directory with the executables that come with Knarr: runc, containerd-shim-runc-v2, pause and the
	// CNI plugins. They are copied to BinDir at start. Empty means libexec beside the running executable.
	Libexec string
	// BinDir is where the runtime finds its executables: DataDir/bin. It has to be on a file system without noexec.
	BinDir string
	// CNIConfDir and CNIBinDirs are where CNI finds its configuration and plugins: DataDir/cni/conf, and DataDir/bin.
	CNIConfDir string
	CNIBinDirs []string
	// RegistryDir holds a directory per registry with a hosts.toml (mirrors, certificates): DataDir/registry.
	RegistryDir string
	// Snapshotter is overlayfs, or native where overlayfs does not work on DataDir's file system.
	Snapshotter string
	// LogLevel is the child's: trace, debug, info, warn (default), error.
	LogLevel string
	// MaxLogLine is how many bytes of a container's output make one line of its log; 16 KiB by default.
	MaxLogLine int
	// Command runs the child; by default this executable with the argument containerd. The flags are appended.
	Command []string
	// LeaveRunning makes Supervisor.Run leave the child running when it is told to stop, to be adopted by the next one, as
	// it is after a crash: what containers print goes on into their logs meanwhile, and sessions in them go on.
	LeaveRunning bool
	// StopGrace is how long the child may take to stop before it is killed; 10 s by default.
	StopGrace time.Duration
	// Logger is slog.Default unless given.
	Logger *slog.Logger
}

// Dir is the child's directory.
func (o *Options) Dir() string { return filepath.Join(o.DataDir, "containerd") }

// Endpoint is the path of the socket on which the child speaks CRI and containerd's own API.
func (o *Options) Endpoint() string { return filepath.Join(o.Dir(), "containerd.sock") }

// LogFile is where the child writes its log.
func (o *Options) LogFile() string { return filepath.Join(o.Dir(), "containerd.log") }

// streamCertificateFile holds the certificate of the child's streaming server, and its key.
func (o *Options) streamCertificateFile() string { return filepath.Join(o.Dir(), "streams.pem") }

func (o *Options) configFile() string { return filepath.Join(o.Dir(), "config.toml") }

// ShimSockets is the directory of the shims' sockets. It is below the data directory, unless that is so long that the
// sockets' paths would not fit; then it is a directory below /run named after a hash of the data directory.
func (o *Options) ShimSockets() string { return shimSockets(o.DataDir) }

// complete fills in what was not given and checks the rest.
func (o *Options) complete() error {
	if !filepath.IsAbs(o.DataDir) {
		return fmt.Errorf("data directory %q is not an absolute path", o.DataDir)
	}
	o.DataDir = filepath.Clean(o.DataDir)
	// Overlay mount options split at these.
	if strings.ContainsAny(o.DataDir, ",:") {
		return fmt.Errorf("data directory %q has a comma or a colon, which an overlay mount cannot name", o.DataDir)
	}
	if err := checkAddress(o.Endpoint() + ".ttrpc"); err != nil {
		return fmt.Errorf("runtime socket: %w", err)
	}
	self, err := os.Executable()
	if err != nil && (o.Libexec == "" || len(o.Command) == 0) {
		return fmt.Errorf("find Knarr's executable: %w", err)
	}
	def(&o.Libexec, filepath.Join(filepath.Dir(self), "libexec"))
	def(&o.BinDir, filepath.Join(o.DataDir, "bin"))
	def(&o.CNIConfDir, filepath.Join(o.DataDir, "cni", "conf"))
	def(&o.RegistryDir, filepath.Join(o.DataDir, "registry"))
	def(&o.LogLevel, "warn")
	def(&o.MaxLogLine, 16<<10)
	def(&o.StopGrace, 10*time.Second)
	def(&o.Logger, slog.Default())
	if len(o.CNIBinDirs) == 0 {
		o.CNIBinDirs = []string{o.BinDir}
	}
	if len(o.Command) == 0 {
		o.Command = []string{self, "containerd"}
	}
	if o.Snapshotter == "" {
		o.Snapshotter = "overlayfs"
		switch err := overlayWorks(o.DataDir); {
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT): // a full disk says nothing about overlays: as it was
			if b, err := os.ReadFile(o.configFile()); err == nil && bytes.Contains(b, []byte(`"native"`)) {
				o.Snapshotter = "native"
			}
		case err != nil:
			o.Logger.Warn("overlayfs does not work here; containers get full copies of their images instead", "dir", o.DataDir, "err", err)
			o.Snapshotter = "native"
		}
	}
	if o.Snapshotter != "overlayfs" && o.Snapshotter != "native" {
		return fmt.Errorf("snapshotter %q: want overlayfs or native", o.Snapshotter)
	}
	return nil
}

// def sets *v unless it has been set.
func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

var errNotRunning = errors.New("the runtime is not running")
