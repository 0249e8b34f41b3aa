package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/podspec"
)

// subPathDir has the mounts of subPaths: VOLUME/CONTAINER/NUMBER.
const subPathDir = "volume-subpaths"

// Mounts returns how a container mounts the pod's volumes. env resolves subPathExpr. Images have the names that the pod has for them;
// the runtime wants those that it knows them by. There is one mount for each of the container's volumeMounts, in their order.
func (d *Disk) Mounts(pod *corev1.Pod, c *corev1.Container, volumes map[string]Mounted, env []*cri.KeyValue) ([]*cri.Mount, error) {
	out := make([]*cri.Mount, 0, len(c.VolumeMounts)+2)
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		v, ok := volumes[vm.Name]
		if !ok {
			return nil, fmt.Errorf("container %s: volumeMounts names volume %q, which the pod does not have", c.Name, vm.Name)
		}
		path := v.HostPath
		sub, err := subPath(vm, env)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", c.Name, err)
		}
		if v.Image != "" {
			out = append(out, &cri.Mount{ContainerPath: containerPath(vm.MountPath), Readonly: true, ImageSubPath: sub,
				Image: &cri.ImageSpec{Image: v.Image, UserSpecifiedImage: v.Image}})
			continue
		}
		if sub != "" {
			at := filepath.Join(d.PodDir(string(pod.UID)), subPathDir, vm.Name, c.Name, strconv.Itoa(i))
			if path, err = bindSubPath(path, sub, at); err != nil {
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", vm.Name, c.Name, err)
			}
		}
		m := &cri.Mount{ContainerPath: containerPath(vm.MountPath), HostPath: path, Readonly: vm.ReadOnly || v.ReadOnly}
		if vm.MountPropagation != nil {
			switch *vm.MountPropagation {
			case corev1.MountPropagationHostToContainer:
				m.Propagation = cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
			case corev1.MountPropagationBidirectional:
				m.Propagation = cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
			}
		}
		out = append(out, m)
	}
	return out, nil
}

func containerPath(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join("/", p)
}

func subPath(vm *corev1.VolumeMount, env []*cri.KeyValue) (string, error) {
	if vm.SubPathExpr == "" {
		return vm.SubPath, nil
	}
	var missing string
	s := podspec.Expand(vm.SubPathExpr, func(name string) (string, bool) {
		for _, kv := range env {
			if kv.Key == name {
				return string(kv.Value), true
			}
		}
		missing = name
		return "", false
	})
	if missing != "" {
		return "", fmt.Errorf("volumeMounts.subPathExpr: %q names %q, which is not in the environment", vm.SubPathExpr, missing)
	}
	if !filepath.IsLocal(s) {
		return "", fmt.Errorf("volumeMounts.subPathExpr: %q leaves the volume", s)
	}
	return s, nil
}

// bindSubPath bind-mounts volume/sub at the path at and returns at. sub is resolved inside the volume only: a container that plants a
// symlink must not get at the node's files (CVE-2017-1002101), nor by swapping it between check and mount, which is why the
// open file is mounted and not its name. What is not there becomes an empty directory, as the kubelet has it: also in a volume of a ConfigMap or
// Secret that lacks the key, which may be optional.
func bindSubPath(volume, sub, at string) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leaves the volume", sub)
	}
	root, err := os.OpenRoot(volume)
	if err != nil {
		return "", err
	}
	defer root.Close()
	fd, err := openBeneath(root, sub)
	if errors.Is(err, os.ErrNotExist) {
		if err = makeBeneath(root, sub); err == nil {
			fd, err = openBeneath(root, sub)
		}
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if err := unmountAt(at); err != nil {
		return "", err
	}
	if err := target(at, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), at, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind mount: %w", err)
	}
	return at, nil
}

// makeBeneath makes the directories of sub that are missing in root, each with the mode of the volume itself, whatever the agent's umask is: the
// volume's users, who are not root, are to use them as they use the volume.
func makeBeneath(root *os.Root, sub string) error {
	volume, err := root.Stat(".")
	if err != nil {
		return err
	}
	mode := volume.Mode() & (os.ModePerm | os.ModeSetgid)
	dir := ""
	for part := range strings.SplitSeq(filepath.Clean(sub), "/") {
		dir = filepath.Join(dir, part)
		switch err := root.Mkdir(dir, mode.Perm()); {
		case errors.Is(err, os.ErrExist):
			continue
		case err != nil:
			return err
		}
		if err := root.Chmod(dir, mode); err != nil {
			return err
		}
	}
	return nil
}

// openBeneath opens sub in root without reading rights, following symlinks only as long as they stay inside (openat2(2)).
func openBeneath(root *os.Root, sub string) (int, error) {
	dir, err := root.Open(".")
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), sub, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: filepath.Join(root.Name(), sub), Err: err}
	}
	return fd, nil
}

// unmountAt takes away what an earlier run of the container left.
func unmountAt(at string) error {
	for {
		err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		switch {
		case err == nil:
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		}
		return fmt.Errorf("unmounting %s: %w", at, err)
	}
}

// target makes an empty directory or file to mount on.
func target(at string, dir bool) error {
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	if dir {
		return os.MkdirAll(at, 0o750)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}
