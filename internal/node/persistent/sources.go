package persistent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/mount"
)

// mountLocal shows a directory of the node that somebody has prepared as a volume, or mounts the file system of a device there is. A device
// without one gets one.
func mountLocal(ctx context.Context, l *corev1.LocalVolumeSource, at string, flags uintptr, data []string) error {
	if !filepath.IsAbs(l.Path) || filepath.Clean(l.Path) != strings.TrimRight(l.Path, "/") {
		return fmt.Errorf("invalid path: %s", l.Path)
	}
	info, err := os.Stat(l.Path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return mount.Bind(l.Path, at, flags)
	}
	dev, err := blockDevice(l.Path)
	if err != nil {
		return err
	}
	fsType := "ext4"
	if l.FSType != nil && *l.FSType != "" {
		fsType = *l.FSType
	}
	if flags&unix.MS_RDONLY == 0 {
		if err := format(ctx, dev, fsType); err != nil {
			return err
		}
	}
	return mountDevice(ctx, dev, fsType, at, flags, data)
}

// blockDevice returns the path of a device without links, if it is one.
func blockDevice(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
		return "", fmt.Errorf("%s is not a block device", path)
	}
	return real, nil
}

// format makes a file system on a device that has nothing on it. What is there, be it another file system, stays.
func format(ctx context.Context, dev, fsType string) error {
	out, err := exec.CommandContext(ctx, "blkid", "-p", "-u", "filesystem", dev).CombinedOutput()
	var failed *exec.ExitError
	switch {
	case err == nil:
		return nil // mounting says whether it is the right one
	case !errors.As(err, &failed) || failed.ExitCode() != 2: // 2: nothing was found (blkid(8))
		return fmt.Errorf("finding out what is on %s: %w: %s", dev, err, strings.TrimSpace(string(out)))
	}
	if all, err := exec.CommandContext(ctx, "blkid", "-p", dev).CombinedOutput(); err == nil {
		return fmt.Errorf("%s has no file system, but something else on it: %s", dev, strings.TrimSpace(string(all)))
	}
	args := []string{dev}
	if strings.HasPrefix(fsType, "ext") {
		args = []string{"-F", "-m", "0", dev}
	}
	if out, err := exec.CommandContext(ctx, "mkfs."+fsType, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("formatting %s: %w: %s", dev, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mountDevice mounts the file system of a device, which pods may share: it is writable as a whole, and each mount is as its pod wants it.
func mountDevice(ctx context.Context, dev, fsType, at string, flags uintptr, data []string) error {
	whole := flags &^ unix.MS_RDONLY
	if err := unix.Mount(dev, at, fsType, whole, strings.Join(data, ",")); err != nil {
		return fmt.Errorf("mounting %s (%s): %w", dev, fsType, err)
	}
	if flags == whole {
		return ctx.Err()
	}
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return errors.Join(fmt.Errorf("mounting %s read-only: %w", dev, err), unix.Unmount(at, unix.UMOUNT_NOFOLLOW))
	}
	return nil
}

// mountNFS mounts a directory of another machine. The kernel alone cannot: mount.nfs finds out which version and port to use.
func mountNFS(ctx context.Context, n *corev1.NFSVolumeSource, at string, flags uintptr, data []string) error {
	if _, err := exec.LookPath("mount.nfs"); err != nil {
		return errors.New("mounting NFS needs mount.nfs on this machine (package nfs-common or nfs-utils)")
	}
	for flag, name := range map[uintptr]string{unix.MS_RDONLY: "ro", unix.MS_NOSUID: "nosuid", unix.MS_NODEV: "nodev", unix.MS_NOEXEC: "noexec", unix.MS_NOATIME: "noatime"} {
		if flags&flag != 0 || flag == unix.MS_RDONLY && n.ReadOnly {
			data = append(data, name)
		}
	}
	server := n.Server
	if strings.Contains(server, ":") {
		server = "[" + server + "]" // IPv6
	}
	args := []string{"-t", "nfs", server + ":" + n.Path, at}
	if len(data) > 0 {
		args = append([]string{"-o", strings.Join(data, ",")}, args...)
	}
	if out, err := exec.CommandContext(ctx, "mount", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mount failed: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
