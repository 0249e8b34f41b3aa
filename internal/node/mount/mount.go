// Package mount mounts, finds mounts again, and takes them away.
//
// What must stay true: what was mounted is found by asking the kernel, without records; a directory on which something is mounted is told
// from one on which nothing is, also where both are of one file system. Tests: TestBindMountsAreFoundAgain, TestReadOnlyBind, TestOptions.
package mount

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// points reads this process's mounts (proc_pid_mountinfo(5)) in the order in which they were made.
func points() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 4 {
			out = append(out, unescape.Replace(fields[4]))
		}
	}
	return out, s.Err()
}

// UnmountBelow unmounts all mounts below dir, the innermost first. One that is in use is detached.
func UnmountBelow(dir string) error {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // as the kernel names it
	}
	all, err := points()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range slices.Backward(all) {
		if !strings.HasPrefix(p, dir+"/") {
			continue
		}
		err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(p, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// Is reports whether something is mounted at path itself (statx(2), Linux 5.8).
func Is(path string) bool {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st) != nil {
		return false
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// Bind shows source at target, too. What is mounted below source is not shown. flags are those of a mount, such as MS_RDONLY: a bind mount
// takes them only when it is mounted anew (mount(2)).
func Bind(source, target string, flags uintptr) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind mount of %s: %w", source, err)
	}
	if flags == 0 {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return errors.Join(fmt.Errorf("bind mount of %s with its options: %w", source, err), unix.Unmount(target, unix.UMOUNT_NOFOLLOW))
	}
	return nil
}

// flagOf returns the mount flag of an option, and those that take one away.
func flagOf(option string) (set, clear uintptr, known bool) {
	switch option {
	case "defaults", "rw", "bind", "auto", "noauto", "_netdev", "nofail":
		return 0, 0, true
	case "ro":
		return unix.MS_RDONLY, 0, true
	case "nosuid":
		return unix.MS_NOSUID, 0, true
	case "suid":
		return 0, unix.MS_NOSUID, true
	case "nodev":
		return unix.MS_NODEV, 0, true
	case "dev":
		return 0, unix.MS_NODEV, true
	case "noexec":
		return unix.MS_NOEXEC, 0, true
	case "exec":
		return 0, unix.MS_NOEXEC, true
	case "noatime":
		return unix.MS_NOATIME, 0, true
	case "nodiratime":
		return unix.MS_NODIRATIME, 0, true
	case "relatime":
		return unix.MS_RELATIME, 0, true
	case "sync":
		return unix.MS_SYNCHRONOUS, 0, true
	}
	return 0, 0, false
}

// Options splits mount options, as mount(8) has them, into flags and what is for the file system alone.
func Options(options []string) (flags uintptr, data []string) {
	for _, list := range options {
		for o := range strings.SplitSeq(list, ",") {
			set, clear, known := flagOf(o)
			if !known && o != "" {
				data = append(data, o)
			}
			flags = flags&^clear | set
		}
	}
	return flags, data
}

// Share makes a directory a mount whose mounts others see as they are made, and the other way round, unless it is one (mount_namespaces(7)).
func Share(dir string) error {
	if !Is(dir) {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind mount of %s: %w", dir, err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making %s shared: %w", dir, err)
	}
	return nil
}
