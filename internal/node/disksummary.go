package node

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// diskFresh is how long what pods have on disk is not added up again: walking their files costs.
const diskFresh = 10 * time.Second

// podDisk is what a pod has on the node's disk.
type podDisk struct {
	at      time.Time
	volumes map[string]volume.Use
	// layers and logs are the containers' own files and what they have said, by container.
	layers, logs map[string]volume.Use
}

// ephemeral is the sum that counts against ephemeral-storage: emptyDirs on disk, writable layers and logs
// (https://kubernetes.io/docs/concepts/storage/ephemeral-storage/#resource-emphemeralstorage-consumption).
func (d *podDisk) ephemeral(pod *corev1.Pod) volume.Use {
	var sum volume.Use
	add := func(u volume.Use) { sum.Bytes, sum.Inodes = sum.Bytes+u.Bytes, sum.Inodes+u.Inodes }
	for i := range pod.Spec.Volumes {
		if u := d.volumes[pod.Spec.Volumes[i].Name]; pod.Spec.Volumes[i].EmptyDir != nil && !u.Memory {
			add(u)
		}
	}
	for _, u := range d.layers {
		add(u)
	}
	for _, u := range d.logs {
		add(u)
	}
	return sum
}

// disks remembers what pods have on disk.
type disks struct {
	mu   sync.Mutex
	pods map[types.UID]*podDisk
}

// podDisk measures what a pod has on disk, or tells what was found a short while ago.
func (a *Agent) podDisk(ctx context.Context, w *worker, now time.Time) *podDisk {
	a.disks.mu.Lock()
	defer a.disks.mu.Unlock()
	if have := a.disks.pods[w.uid]; have != nil && now.Sub(have.at) < diskFresh {
		return have
	}
	pod := w.podNow()
	d := &podDisk{at: now, volumes: a.volumes.Uses(ctx, pod), layers: map[string]volume.Use{}, logs: map[string]volume.Use{}}
	for _, run := range w.seen().Containers {
		dir := filepath.Dir(w.logPath(run.Name, run.Attempt))
		if _, done := d.logs[run.Name]; !done {
			d.logs[run.Name] = volume.Measure(ctx, dir)
		}
		if run.State != lifecycle.Running {
			continue
		}
		if layer := a.layer(string(w.uid), run.ID); layer != "" {
			d.layers[run.Name] = volume.Measure(ctx, layer)
		}
	}
	if a.disks.pods == nil {
		a.disks.pods = map[types.UID]*podDisk{}
	}
	for uid, old := range a.disks.pods {
		if now.Sub(old.at) > 10*diskFresh {
			delete(a.disks.pods, uid)
		}
	}
	if ctx.Err() == nil { // else it is not all
		a.disks.pods[w.uid] = d
	}
	return d
}

// layer returns the directory with the files that a running container has written. Whatever the runtime, and without asking it:
// containerd measures its snapshots only now and then.
func (a *Agent) layer(uid, container string) string {
	pids, err := a.cgroups.Processes(uid, container)
	if err != nil || len(pids) == 0 {
		return ""
	}
	return machine.UpperDir(pids[0])
}

// addDisks fills in what a summary says about disks.
func (a *Agent) addDisks(ctx context.Context, s *kubelet.Summary, now time.Time) {
	if a.cfg.Hollow {
		return
	}
	stamp := metav1.NewTime(now)
	root := machine.FileSystem(a.cfg.DataDir, stamp)
	s.Node.Fs = root
	if root == nil {
		return
	}
	if info, err := a.rt.ImageFsInfo(ctx); err == nil {
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
	for i := range s.Pods {
		p := &s.Pods[i]
		w := a.worker(types.UID(p.PodRef.UID))
		if w == nil {
			continue
		}
		d := a.podDisk(ctx, w, now)
		for j := range p.Containers {
			c := &p.Containers[j]
			if u, ok := d.layers[c.Name]; ok {
				fs := share(u, d.at)
				c.Rootfs = &fs
			}
			logs := share(d.logs[c.Name], d.at)
			c.Logs = &logs
		}
		pod := w.podNow()
		for k := range pod.Spec.Volumes {
			if u, ok := d.volumes[pod.Spec.Volumes[k].Name]; ok {
				p.VolumeStats = append(p.VolumeStats, kubelet.VolumeStats{Name: pod.Spec.Volumes[k].Name, FsStats: share(u, d.at)})
			}
		}
		sum := share(d.ephemeral(pod), d.at)
		p.EphemeralStorage = &sum
	}
}
