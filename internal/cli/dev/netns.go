package dev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// isNamespace reports whether a network namespace is mounted at path. After the machine was restarted there is only an empty file.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// makeNamespace mounts a new network namespace at path, unless there is one. It lives until it is removed, whatever runs in it.
func makeNamespace(path string) error {
	if isNamespace(path) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return hint(fmt.Errorf("making a network namespace: %w", err))
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting a network namespace at %s: %w", path, err)
		}
		return nil
	})
}

// removeNamespace lets the namespace at path, if there is one, and the links in it go.
func removeNamespace(path string) error {
	if isNamespace(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// inNamespace runs f in the network namespace at path; processes that f starts are in it too.
func inNamespace(path string, f func() error) error {
	fd, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer fd.Close()
	return onThread(func() error {
		if err := netns.Set(fd); err != nil {
			return fmt.Errorf("entering network namespace %s: %w", path, err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends afterwards, so that f may move it to another namespace.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// hint adds to errors that come from a kernel without what is needed.
func hint(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w (knarr dev needs a kernel with network namespaces, veth, bridge and nftables with nat; modprobe may load them)", err)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (root is confined here, as in a container: CAP_SYS_ADMIN and CAP_NET_ADMIN are needed)", err)
	}
	return err
}
