package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/mount"
	"github.com/knarr-io/knarr/internal/node/persistent"
	"github.com/knarr-io/knarr/internal/node/plugins"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// Disk keeps volumes below one directory: DIR/UID/volumes/NAME. What is secret it keeps in memory: MEMORY/UID/volumes/NAME.
type Disk struct {
	Dir string // DATA/pods
	// Memory is where a tmpfs is mounted for Secrets, tokens and the downward API, one for all pods; these are on disk where it is empty.
	Memory string
	// Claims mounts the volumes of claims; nil where there are none.
	Claims *persistent.Mounter
	// Kubelet is the directory that stands for the kubelet's where a hostPath names that.
	Kubelet plugins.Root

	mounting sync.Mutex
}

// Mounted is a volume that is ready for containers.
type Mounted struct {
	HostPath string
	ReadOnly bool // whatever the mount says: files from API objects
	// Device says that HostPath is a block device.
	Device bool
	// Image is the name of the image whose files the volume is (KEP-4639); the runtime mounts it, and there is no HostPath.
	Image string
}

// PodDir returns the pod's directory.
func (d *Disk) PodDir(uid string) string { return filepath.Join(d.Dir, uid) }

// Setup makes the pod's volumes, or brings them up to date, and returns them by name. renew is when Setup must be called again for
// tokens to stay valid; zero for never. It is idempotent.
func (d *Disk) Setup(ctx context.Context, pod *corev1.Pod, src Source, facts podspec.Facts) (out map[string]Mounted, renew time.Time, err error) {
	out = make(map[string]Mounted, len(pod.Spec.Volumes))
	if err := os.MkdirAll(d.PodDir(string(pod.UID)), 0o750); err != nil {
		return nil, renew, err
	}
	if renew, err = d.claimed(ctx, pod, src, out); err != nil {
		return nil, renew, err
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if d.Claims != nil && isClaimed(pod, v) {
			continue // a volume that no container uses is not mounted
		}
		m, at, err := d.one(ctx, pod, v, src, facts)
		if err != nil {
			return nil, renew, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
		if !at.IsZero() && (renew.IsZero() || at.Before(renew)) {
			renew = at
		}
		out[v.Name] = m
	}
	return out, renew, nil
}

func (d *Disk) one(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, src Source, facts podspec.Facts) (Mounted, time.Time, error) {
	dir := filepath.Join(d.PodDir(string(pod.UID)), "volumes", v.Name)
	gid := -1
	if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		gid = int(*sc.FSGroup)
	}
	switch {
	case isFiles(v):
		files, renew, err := payload(ctx, pod, v, src, facts)
		if err != nil {
			return Mounted{}, time.Time{}, err
		}
		if v.ConfigMap == nil && d.Memory != "" {
			dir = filepath.Join(d.Memory, string(pod.UID), "volumes", v.Name)
			if err := d.mountMemory(); err != nil {
				return Mounted{}, time.Time{}, err
			}
		}
		if err := directory(dir, gid); err != nil {
			return Mounted{}, time.Time{}, err
		}
		if _, err := writeFiles(dir, files, gid); err != nil {
			return Mounted{}, time.Time{}, err
		}
		return Mounted{HostPath: dir, ReadOnly: true}, renew, nil
	case v.EmptyDir != nil:
		return Mounted{HostPath: dir}, time.Time{}, emptyDir(dir, v.EmptyDir, gid, podspec.ForPod(pod).MemoryLimit)
	case v.HostPath != nil:
		m, err := d.hostPath(v.HostPath)
		return m, time.Time{}, err
	case v.Image != nil:
		return Mounted{Image: v.Image.Reference, ReadOnly: true}, time.Time{}, nil
	}
	return Mounted{}, time.Time{}, fmt.Errorf("%s is not supported yet; use persistentVolumeClaim, ephemeral, csi, nfs, emptyDir, hostPath, configMap, secret, downwardAPI, projected or image", kind(v))
}

// mountMemory mounts the tmpfs unless it is there: it outlives the agent, not the machine.
func (d *Disk) mountMemory() error {
	d.mounting.Lock()
	defer d.mounting.Unlock()
	if mount.Is(d.Memory) {
		return nil
	}
	if err := os.MkdirAll(d.Memory, 0o750); err != nil {
		return err
	}
	const options = "mode=0750"
	err := unix.Mount("tmpfs", d.Memory, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options+",noswap") // Linux 6.4
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", d.Memory, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	}
	if err != nil {
		return fmt.Errorf("mounting tmpfs at %s: %w", d.Memory, err)
	}
	return nil
}

// kind names the source of a volume that is not supported, as the API does.
func kind(v *corev1.Volume) string {
	switch {
	case v.ISCSI != nil:
		return "iscsi"
	}
	return "this kind of volume"
}

// emptyDir makes a directory, on disk or in memory. limit is the pod's memory limit, which bounds a tmpfs without sizeLimit.
func emptyDir(dir string, e *corev1.EmptyDirVolumeSource, gid int, limit int64) error {
	if _, err := os.Stat(dir); err == nil && (e.Medium != corev1.StorageMediumMemory || mount.Is(dir)) {
		return nil
	}
	if err := directory(dir, gid); err != nil {
		return err
	}
	switch e.Medium {
	case corev1.StorageMediumDefault:
		return nil
	case corev1.StorageMediumMemory:
		options := "mode=0777"
		if gid >= 0 {
			options = fmt.Sprintf("mode=02777,gid=%d", gid)
		}
		if e.SizeLimit != nil && !e.SizeLimit.IsZero() && (limit == 0 || amount.Units(*e.SizeLimit) < limit) {
			limit = amount.Units(*e.SizeLimit)
		}
		if limit > 0 {
			options += fmt.Sprintf(",size=%d", limit)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			return fmt.Errorf("mounting tmpfs: %w", err)
		}
		return nil
	}
	return fmt.Errorf("emptyDir.medium: %q is not supported; use \"\" or Memory", e.Medium)
}

// directory makes the directory that containers see as a volume, for all users as the kubelet's is, whatever the agent's umask; gid >= 0 owns
// it. It appears complete or not at all: a volume that is there was finished.
func directory(dir string, gid int) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	mode := os.FileMode(0o777)
	if gid >= 0 {
		err = os.Lchown(fresh, -1, gid)
		mode |= os.ModeSetgid
	}
	if err == nil {
		err = os.Chmod(fresh, mode)
	}
	if err == nil {
		err = os.Rename(fresh, dir)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return nil
}

// hostPath returns a path of the machine, or the agent's directory in place of the kubelet's, which is there for drivers that mount it.
func (d *Disk) hostPath(h *corev1.HostPathVolumeSource) (Mounted, error) {
	at := d.Kubelet.Host(h.Path)
	if at == h.Path {
		return Mounted{HostPath: at}, hostPath(h)
	}
	if err := d.Kubelet.Prepare(); err != nil {
		return Mounted{}, err
	}
	return Mounted{HostPath: at}, hostPath(&corev1.HostPathVolumeSource{Path: at, Type: h.Type})
}

// hostPath checks, or makes, what hostPath.type asks for.
func hostPath(h *corev1.HostPathVolumeSource) error {
	t := corev1.HostPathUnset
	if h.Type != nil {
		t = *h.Type
	}
	st, err := os.Stat(h.Path)
	if errors.Is(err, os.ErrNotExist) {
		switch t {
		case corev1.HostPathUnset:
			return nil
		case corev1.HostPathDirectoryOrCreate:
			return os.MkdirAll(h.Path, 0o755)
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	if err != nil && t != corev1.HostPathUnset {
		return fmt.Errorf("hostPath type check failed: %s is not a %s: %w", h.Path, typeName(t), err)
	}
	if t == corev1.HostPathUnset {
		return nil
	}
	ok := false
	switch m := st.Mode(); t {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		ok = m.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		ok = m.IsRegular()
	case corev1.HostPathSocket:
		ok = m&os.ModeSocket != 0
	case corev1.HostPathCharDev:
		ok = m&os.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		ok = m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, typeName(t))
	}
	return nil
}

func typeName(t corev1.HostPathType) string {
	switch t {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return "directory"
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return "file"
	case corev1.HostPathSocket:
		return "socket file"
	case corev1.HostPathCharDev:
		return "character device"
	case corev1.HostPathBlockDev:
		return "block device"
	}
	return string(t)
}
