package machine

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// DiskUsedPercent returns how full the file system of dir is.
func DiskUsedPercent(dir string) (int, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	used := fs.Blocks - fs.Bfree
	if used+fs.Bavail == 0 {
		return 0, nil
	}
	return int(used * 100 / (used + fs.Bavail)), nil
}

// FileSystem measures the file system of dir; nil where that cannot be done.
func FileSystem(dir string, at metav1.Time) *kubelet.FsStats {
	var st unix.Statfs_t
	if dir == "" || unix.Statfs(dir, &st) != nil {
		return nil
	}
	size := uint64(st.Bsize)
	left, all, used := st.Bavail*size, st.Blocks*size, (st.Blocks-st.Bfree)*size
	inodes, inodesLeft, inodesUsed := st.Files, st.Ffree, st.Files-st.Ffree
	return &kubelet.FsStats{Time: at, AvailableBytes: &left, CapacityBytes: &all, UsedBytes: &used,
		Inodes: &inodes, InodesFree: &inodesLeft, InodesUsed: &inodesUsed}
}

// Devices names block devices, "/dev/sda", by their numbers, "8:0" (/proc/partitions, proc(5)).
func Devices() map[string]string {
	b, _ := os.ReadFile("/proc/partitions") // a machine without disks has none to name
	return devices(string(b))
}

func devices(partitions string) map[string]string {
	names := map[string]string{}
	for line := range strings.Lines(partitions) {
		if f := strings.Fields(line); len(f) == 4 && f[0] != "major" {
			names[f[0]+":"+f[1]] = "/dev/" + f[3]
		}
	}
	return names
}

// DeviceOf returns the numbers of the device that holds dir, "" where that cannot be found.
func DeviceOf(dir string) string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
}
