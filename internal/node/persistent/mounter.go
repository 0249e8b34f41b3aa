package persistent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/node/csi"
	"github.com/knarr-io/knarr/internal/node/local"
	"github.com/knarr-io/knarr/internal/node/loop"
	"github.com/knarr-io/knarr/internal/node/mount"
)

// Mounter mounts volumes for pods.
type Mounter struct {
	// Pods is the directory with a directory for each pod.
	Pods string
	// Local has the volumes of knarr-local.
	Local *local.Store
	// CSI has those of other drivers; nil where none can register.
	CSI *csi.Manager
	// Node returns the node's object; nil where it is not known yet.
	Node func() *corev1.Node

	// devices is held while it is decided whether a device that pods share is made or ended.
	devices sync.Mutex
}

// Mounted is a volume that is there for containers: a directory or, if Device, a block device.
type Mounted struct {
	Path             string
	Device, ReadOnly bool
}

// Mount makes a volume ready for a pod. It may be called again.
func (m *Mounter) Mount(ctx context.Context, pod *corev1.Pod, v *Volume) (Mounted, error) {
	if err := m.checkNode(v.PV); err != nil {
		return Mounted{}, err
	}
	dir, r := m.dir(pod.UID, v.Name), recordOf(pod.UID, pod.Name, v)
	out := Mounted{ReadOnly: r.ReadOnly, Device: r.Block}
	if err := r.write(dir); err != nil {
		return out, err
	}
	if r.foreign() {
		return m.foreign(ctx, pod, v, r, dir)
	}
	if out.Device {
		var err error
		out.Path, err = m.device(ctx, v.PV, r, dir)
		return out, err
	}
	out.Path = filepath.Join(dir, mountPoint)
	ready := filepath.Join(dir, readyFile)
	if !mount.Is(out.Path) {
		if err := errors.Join(ignoreMissing(os.Remove(ready)), os.MkdirAll(out.Path, 0o750)); err != nil {
			return out, err
		}
		if err := m.mount(ctx, v.PV, out.ReadOnly, out.Path); err != nil {
			return out, err
		}
	}
	if !out.ReadOnly && grouped(v.PV) && !m.shared(pod.UID, v.PV.Name) {
		if err := own(ctx, out.Path, pod.Spec.SecurityContext); err != nil {
			return out, fmt.Errorf("applyFSGroup failed for vol %s: %w", v.PV.Name, err)
		}
	}
	return out, os.WriteFile(ready, nil, 0o600)
}

// readyFile stands beside a mount that has the pod's group, too.
const readyFile = "ready"

func (m *Mounter) dir(pod types.UID, volume string) string {
	return filepath.Join(m.Pods, string(pod), claimsDir, volume)
}

// grouped reports whether fsGroup is for this kind of volume: those that are this node's alone.
func grouped(pv *corev1.PersistentVolume) bool { return pv.Spec.Local != nil || pv.Spec.CSI != nil }

// shared reports whether another pod of the node has the volume already: then it keeps the group that it has.
func (m *Mounter) shared(pod types.UID, volume string) bool {
	all, err := allRecords(m.Pods)
	return err == nil && slices.ContainsFunc(all, func(r *Record) bool {
		_, ok := m.held(r)
		return r.Volume == volume && r.Pod != pod && ok
	})
}

// Held returns what a pod has, by the volume's name in it: what was mounted is not asked for again.
func (m *Mounter) Held(pod types.UID) (map[string]Mounted, error) {
	mine, err := records(m.Pods, string(pod))
	out := map[string]Mounted{}
	for _, r := range mine {
		if have, ok := m.held(r); ok {
			out[r.Name] = have
		}
	}
	return out, err
}

// Mount is a volume that a pod has, and where.
type Mount struct {
	Record
	At string
}

// Mounts returns the volumes that all pods have.
func (m *Mounter) Mounts() ([]Mount, error) {
	all, err := allRecords(m.Pods)
	if err != nil {
		return nil, err
	}
	var out []Mount
	for _, r := range all {
		if have, ok := m.held(r); ok {
			out = append(out, Mount{Record: *r, At: have.Path})
		}
	}
	return out, nil
}

// held returns what is there by a record, if it is complete.
func (m *Mounter) held(r *Record) (Mounted, bool) {
	out := Mounted{ReadOnly: r.ReadOnly, Device: r.Block}
	var err error
	switch {
	case r.foreign():
		if m.CSI == nil || !booted(filepath.Join(m.dir(r.Pod, r.Name), readyFile)) {
			return out, false
		}
		if out.Path = m.CSI.Path(r.ref()); r.Block {
			out.Path, err = blockDevice(out.Path)
		}
	case r.Device != "":
		out.Path, err = loop.Find(r.Device)
	case r.Block:
		out.Path, err = blockDevice(r.Path)
	default:
		out.Path = filepath.Join(m.dir(r.Pod, r.Name), mountPoint)
		if _, err = os.Stat(filepath.Join(m.dir(r.Pod, r.Name), readyFile)); err == nil && !mount.Is(out.Path) {
			return out, false
		}
	}
	return out, err == nil && out.Path != ""
}

// Uses reports whether a pod of the node has a local volume.
func (m *Mounter) Uses(handle string) bool {
	all, err := allRecords(m.Pods)
	return err != nil || slices.ContainsFunc(all, func(r *Record) bool { return r.Driver == localvolume.Driver && r.Handle == handle })
}

// checkNode returns why the node may not have a volume.
func (m *Mounter) checkNode(pv *corev1.PersistentVolume) error {
	node := m.Node()
	if node == nil || pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	terms, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
	if err != nil {
		return err
	}
	if !terms.Match(node) {
		return errors.New("no matching NodeSelectorTerms: the volume's node affinity is for other nodes")
	}
	return nil
}

// mount mounts a volume's files at a directory.
func (m *Mounter) mount(ctx context.Context, pv *corev1.PersistentVolume, readOnly bool, at string) error {
	flags, data := mount.Options(pv.Spec.MountOptions)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	switch s := &pv.Spec; {
	case localvolume.Is(pv):
		place, err := m.Local.Ensure(ctx, pv)
		if err != nil {
			return err
		}
		if place.Disk == "" {
			return mount.Bind(place.Dir, at, flags)
		}
		dev, err := loop.Attach(place.Disk, true)
		if err != nil {
			return err
		}
		defer dev.Close() // the mount holds it now
		return mountDevice(ctx, dev.Name(), "ext4", at, flags, data)
	case s.Local != nil:
		return mountLocal(ctx, s.Local, at, flags, data)
	case s.NFS != nil:
		return mountNFS(ctx, s.NFS, at, flags, data)
	}
	return errors.New("no volume plugin matched: of PersistentVolumes, nodes mount hostPath, local, nfs and csi")
}

// device makes a volume's block device, or finds it, and returns its path.
func (m *Mounter) device(ctx context.Context, pv *corev1.PersistentVolume, r *Record, dir string) (string, error) {
	switch s := &pv.Spec; {
	case localvolume.Is(pv):
		place, err := m.Local.Ensure(ctx, pv)
		if err != nil {
			return "", err
		}
		if !place.Raw {
			return "", fmt.Errorf("local volume %s has files, no device", s.CSI.VolumeHandle)
		}
		m.devices.Lock()
		defer m.devices.Unlock()
		r.Device = place.Disk
		if err := r.write(dir); err != nil {
			return "", err
		}
		dev, err := loop.Attach(place.Disk, false)
		if err != nil {
			return "", err
		}
		return dev.Name(), dev.Close()
	case s.Local != nil:
		r.Path = s.Local.Path
		if err := r.write(dir); err != nil {
			return "", err
		}
		return blockDevice(s.Local.Path)
	}
	return "", errors.New("no volume plugin matched: of PersistentVolumes with volumeMode Block, nodes have local and csi")
}

// Release gives back what a pod had, whose mounts are gone. A mount point that is not empty, or a mount after all, is an error: nothing is
// ever removed from a volume.
func (m *Mounter) Release(ctx context.Context, pod types.UID) error {
	mine, err := records(m.Pods, string(pod))
	if err != nil {
		return err
	}
	for _, r := range mine {
		switch {
		case r.foreign():
			err = m.releaseForeign(ctx, r)
		case r.Device != "":
			err = m.releaseDevice(r)
		}
		if err != nil {
			return err
		}
	}
	dirs, err := filepath.Glob(filepath.Join(m.Pods, string(pod), claimsDir, "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		for _, name := range []string{mountPoint, readyFile, recordFile + ".new", recordFile, ""} {
			if err := ignoreMissing(os.Remove(filepath.Join(dir, name))); err != nil {
				return fmt.Errorf("removing a mount point: %w", err)
			}
		}
	}
	if slices.ContainsFunc(mine, (*Record).foreign) {
		m.CSI.Freed(ctx)
	}
	return nil
}

// releaseDevice ends a device that no other pod has.
func (m *Mounter) releaseDevice(mine *Record) error {
	m.devices.Lock()
	defer m.devices.Unlock()
	all, err := allRecords(m.Pods)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r *Record) bool { return r.Device == mine.Device && r.Pod != mine.Pod }) {
		return nil
	}
	return loop.Detach(mine.Device)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
