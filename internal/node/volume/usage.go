package volume

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/mount"
)

// Use is what a directory takes of its file system.
type Use struct {
	Bytes, Inodes uint64
	// Memory says that the bytes are memory, not disk.
	Memory bool
}

// Uses measures the pod's own volumes - those that take room on this machine and go with the pod - by name. It walks their files.
func (d *Disk) Uses(ctx context.Context, pod *corev1.Pod) map[string]Use {
	out := map[string]Use{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		dir := filepath.Join(d.PodDir(string(pod.UID)), "volumes", v.Name)
		switch {
		case v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory, v.EmptyDir != nil && mount.Is(dir):
			var st unix.Statfs_t
			if mount.Is(dir) && unix.Statfs(dir, &st) == nil {
				out[v.Name] = Use{Bytes: (st.Blocks - st.Bfree) * uint64(st.Bsize), Inodes: st.Files - st.Ffree, Memory: true}
			}
		case v.EmptyDir != nil, v.ConfigMap != nil:
			out[v.Name] = Measure(ctx, dir)
		}
	}
	return out
}

// Measure adds up what dir and all below it take, on its own file system. Files with several names count once. What vanishes
// meanwhile is not counted, nor is what is left when ctx ends.
func Measure(ctx context.Context, dir string) Use {
	var u Use
	var device uint64
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil {
			return nil // gone, or not to be read: the rest counts
		}
		info, err := os.Lstat(path)
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if path == dir {
			device = st.Dev
		}
		if st.Dev != device {
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !e.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		u.Bytes += uint64(st.Blocks) * 512
		u.Inodes++
		return nil
	})
	return u
}
