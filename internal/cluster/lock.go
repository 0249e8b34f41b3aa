package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is the right to be the one server of a data directory. The kernel gives it back when the process ends, however it ends.
type Lock struct {
	file *os.File
}

// ErrRunning says that another server has the data directory.
var ErrRunning = errors.New("another knarr server is running")

func lockPath(dataDir string) string { return filepath.Join(dataDir, "knarr.pid") }

// TakeLock makes this process the one server of dataDir, which is made if need be. The error wraps ErrRunning and names the
// process that is it already.
func TakeLock(dataDir string) (*Lock, error) {
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	f, err := os.OpenFile(lockPath(dataDir), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // only the lock mattered
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, _ := os.ReadFile(lockPath(dataDir)) // for the message only
			return nil, fmt.Errorf("%w on %s (process %s); stop it first, or give this one another --data-dir and --listen", ErrRunning, dataDir, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("locking %s: %w", lockPath(dataDir), err)
	}
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("writing %s: %w", lockPath(dataDir), err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, fmt.Errorf("writing %s: %w", lockPath(dataDir), err)
	}
	return &Lock{f}, nil
}

// noNodePath is a file that is there while the server of dataDir runs a control plane only.
func noNodePath(dataDir string) string { return filepath.Join(dataDir, "control-plane-only") }

// SetNode notes, for [RunsNode], whether this server makes its machine a node, too.
func (l *Lock) SetNode(node bool) error {
	path := noNodePath(filepath.Dir(l.file.Name()))
	if !node {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return fmt.Errorf("noting that this machine is no node: %w", err)
		}
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("noting that this machine is a node: %w", err)
	}
	return nil
}

// RunsNode reports whether the running server of dataDir makes its machine a node, too.
func RunsNode(dataDir string) bool {
	_, err := os.Stat(noNodePath(dataDir))
	return err != nil
}

// Release gives the data directory free.
func (l *Lock) Release() { _ = l.file.Close() } // the kernel drops the lock with the file

// RunningServer returns the process id of the server that has dataDir, or 0.
func RunningServer(dataDir string) int {
	f, err := os.OpenFile(lockPath(dataDir), os.O_RDWR, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0
	}
	b, err := os.ReadFile(lockPath(dataDir))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}
