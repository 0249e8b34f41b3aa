package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Teardown unmounts and removes everything of a pod. It is idempotent, and never removes through a mount that would not go.
func (d *Disk) Teardown(uid string) error {
	if uid == "" || strings.ContainsRune(uid, '/') || uid == "." || uid == ".." {
		return fmt.Errorf("pod UID %q cannot name a directory", uid)
	}
	dir := d.PodDir(uid)
	if err := unmountBelow(dir); err != nil {
		return err
	}
	dirs := []string{dir} // last: it is by this that the pod is found again
	if d.Memory != "" {
		dirs = []string{filepath.Join(d.Memory, uid), dir}
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing volumes of pod %s: %w", uid, err)
		}
	}
	return nil
}

// Pods returns the UIDs of all pods that have a directory.
func (d *Disk) Pods() []string {
	entries, _ := os.ReadDir(d.Dir)
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}

// unmountBelow unmounts all mounts below dir, the innermost first.
func unmountBelow(dir string) error {
	points, err := mountPoints()
	if err != nil {
		return err
	}
	var errs []error
	for i := len(points) - 1; i >= 0; i-- { // mountinfo lists them in the order they were made
		if p := points[i]; strings.HasPrefix(p, dir+"/") {
			if err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW); errors.Is(err, unix.EBUSY) {
				err = unix.Unmount(p, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
				if err != nil {
					errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
				}
			} else if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
			}
		}
	}
	return errors.Join(errs...)
}

// mountPoints reads this process's mounts (proc(5), mountinfo).
func mountPoints() ([]string, error) {
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

// isMount reports whether something is mounted at dir itself.
func isMount(dir string) bool {
	var a, b unix.Stat_t
	if unix.Lstat(dir, &a) != nil || unix.Lstat(filepath.Dir(dir), &b) != nil {
		return false
	}
	return a.Dev != b.Dev
}
