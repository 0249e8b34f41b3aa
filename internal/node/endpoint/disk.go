package endpoint

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// addDisks fills in what a summary says about disks.
func (e *Endpoint) addDisks(ctx context.Context, s *kubelet.Summary, now time.Time) {
	if e.Hollow {
		return
	}
	stamp := metav1.NewTime(now)
	root := machine.FileSystem(e.DataDir, stamp)
	s.Node.Fs = root
	if root == nil {
		return
	}
	if info, err := e.Runtime.ImageFsInfo(ctx); err == nil {
		for _, fs := range info.GetImageFilesystems() {
			images := machine.FileSystem(fs.GetFsId().GetMountpoint(), nanoTime(fs.Timestamp))
			if images == nil {
				continue
			}
			images.UsedBytes, images.InodesUsed = value(fs.UsedBytes), value(fs.InodesUsed)
			s.Node.Runtime = &kubelet.RuntimeStats{ImageFs: images, ContainerFs: images}
			break
		}
	}
	share := func(u volume.Use, t time.Time) kubelet.FsStats {
		return kubelet.FsStats{Time: metav1.NewTime(t), AvailableBytes: root.AvailableBytes, CapacityBytes: root.CapacityBytes,
			InodesFree: root.InodesFree, Inodes: root.Inodes, UsedBytes: &u.Bytes, InodesUsed: &u.Inodes}
	}
	var claims map[types.UID][]kubelet.VolumeStats
	if e.Claims != nil {
		claims = e.Claims.stats(ctx, now)
	}
	for i := range s.Pods {
		p := &s.Pods[i]
		w := e.Pods.Get(types.UID(p.PodRef.UID))
		if w == nil {
			continue
		}
		d := e.Disks.Of(ctx, w, now)
		for j := range p.Containers {
			c := &p.Containers[j]
			if u, ok := d.Layers[c.Name]; ok {
				fs := share(u, d.At)
				c.Rootfs = &fs
			}
			logs := share(d.Logs[c.Name], d.At)
			c.Logs = &logs
		}
		spec := w.Pod()
		for k := range spec.Spec.Volumes {
			if u, ok := d.Volumes[spec.Spec.Volumes[k].Name]; ok {
				p.VolumeStats = append(p.VolumeStats, kubelet.VolumeStats{Name: spec.Spec.Volumes[k].Name, FsStats: share(u, d.At)})
			}
		}
		p.VolumeStats = append(p.VolumeStats, claims[w.UID()]...)
		sum := share(d.Ephemeral(spec), d.At)
		p.EphemeralStorage = &sum
	}
}
