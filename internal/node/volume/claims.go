package volume

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/persistent"
)

// republishAfter is how long a driver that wants to be told again of its volumes (requiresRepublish) is left alone.
const republishAfter = time.Minute

// claimed mounts the volumes that the pod has by claims, of CSI drivers, and those of other machines, and puts them into out. All claims are
// looked at before anything is mounted. renew is when that is to be done again; zero for never.
func (d *Disk) claimed(ctx context.Context, pod *corev1.Pod, src Source, out map[string]Mounted) (renew time.Time, err error) {
	if d.Claims == nil || !hasClaimed(pod) {
		return renew, nil
	}
	have, err := d.Claims.Held(pod.UID)
	if err != nil {
		return renew, err
	}
	again, err := d.Claims.Again(pod.UID)
	if err != nil {
		return renew, err
	}
	for _, name := range again {
		delete(have, name)
	}
	for name, m := range have {
		out[name] = Mounted{HostPath: m.Path, ReadOnly: m.ReadOnly, Device: m.Device}
	}
	wanted, err := persistent.Resolve(ctx, pod, have, src)
	if err != nil {
		return renew, err
	}
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.NFS != nil && out[v.Name].HostPath == "":
			pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: v.Name}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{NFS: v.NFS}}}
			wanted[v.Name] = &persistent.Volume{Name: v.Name, Claim: &corev1.PersistentVolumeClaim{}, PV: pv, ReadOnly: v.NFS.ReadOnly}
		case v.CSI != nil && out[v.Name].HostPath == "":
			wanted[v.Name] = persistent.Inline(pod, v)
		}
	}
	for name, v := range wanted {
		if out[name], err = d.claim(ctx, pod, v); err != nil {
			return renew, err
		}
	}
	if again, err = d.Claims.Again(pod.UID); err == nil && len(again) > 0 {
		renew = time.Now().Add(republishAfter)
	}
	return renew, err
}

// claim mounts one volume.
func (d *Disk) claim(ctx context.Context, pod *corev1.Pod, v *persistent.Volume) (Mounted, error) {
	if h := v.PV.Spec.HostPath; h != nil && !v.Block() {
		if err := hostPath(h); err != nil {
			return Mounted{}, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.PV.Name, err)
		}
		return Mounted{HostPath: h.Path, ReadOnly: v.ReadOnly}, nil
	}
	m, err := d.Claims.Mount(ctx, pod, v)
	if err != nil && v.Block() {
		return Mounted{}, fmt.Errorf("MapVolume.SetUpDevice failed for volume %q : %w", v.PV.Name, err)
	}
	if err != nil {
		return Mounted{}, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.PV.Name, err)
	}
	return Mounted{HostPath: m.Path, ReadOnly: m.ReadOnly, Device: m.Device}, nil
}

// hasClaimed reports whether one of the pod's volumes is for claimed to mount.
func hasClaimed(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return isClaimed(pod, &v) })
}

func isClaimed(pod *corev1.Pod, v *corev1.Volume) bool {
	return persistent.ClaimName(pod, v) != "" || v.NFS != nil || v.CSI != nil
}

// Devices returns the block devices that a container has of the pod's volumes.
func Devices(c *corev1.Container, volumes map[string]Mounted) ([]*cri.Device, error) {
	var out []*cri.Device
	for _, d := range c.VolumeDevices {
		v, ok := volumes[d.Name]
		if !ok || !v.Device {
			return nil, fmt.Errorf("cannot find volume %q to pass into container %q", d.Name, c.Name)
		}
		may := "mrw"
		if v.ReadOnly {
			may = "r"
		}
		out = append(out, &cri.Device{ContainerPath: d.DevicePath, HostPath: v.HostPath, Permissions: may})
	}
	return out, nil
}
