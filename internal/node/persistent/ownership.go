package persistent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// What fsGroup gives the group: reading and writing, and entering directories, whose group new files in them get.
const (
	groupFiles = fs.FileMode(0o660)
	groupDirs  = groupFiles | 0o110 | fs.ModeSetgid
)

// own gives a volume, with all that is in it, to the pod's fsGroup
// (https://kubernetes.io/docs/tasks/configure-pod-container/security-context/, "Configure volume permission and ownership change policy").
// The root is changed last: by it a later pod sees that all else is done. A link that another pod's process plants meanwhile leads nowhere
// outside of the volume.
func own(ctx context.Context, volume string, sc *corev1.PodSecurityContext) error {
	if sc == nil || sc.FSGroup == nil {
		return nil
	}
	gid := int(*sc.FSGroup)
	if p := sc.FSGroupChangePolicy; p != nil && *p == corev1.FSGroupChangeOnRootMismatch && owned(volume, gid) {
		return nil
	}
	root, err := os.OpenRoot(volume)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist), path == "." && err == nil:
			return nil // another pod's process removed it; the root's turn comes
		case err != nil:
			return err
		}
		return give(root, path, gid)
	})
	if err != nil {
		return err
	}
	return give(root, ".", gid)
}

// owned reports whether the root of a volume is as give would make it.
func owned(volume string, gid int) bool {
	info, err := os.Stat(volume)
	if err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Gid) == gid && info.Mode()&groupDirs == groupDirs
}

// give gives one file to the group. Links have no mode of their own.
func give(root *os.Root, path string, gid int) error {
	info, err := root.Lstat(path)
	if err == nil {
		err = root.Lchown(path, -1, gid)
	}
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		more := groupFiles
		if info.IsDir() {
			more = groupDirs
		}
		err = root.Chmod(path, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)|more)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
