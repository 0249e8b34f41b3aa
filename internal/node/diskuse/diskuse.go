package diskuse

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// fresh is how long what pods have on disk is not added up again: walking their files costs.
const fresh = 10 * time.Second

// Use is what a pod has on the node's disk.
type Use struct {
	At      time.Time // when it was measured
	Volumes map[string]volume.Use
	// Layers and Logs are the containers' own files and what they have said, by container.
	Layers, Logs map[string]volume.Use
}

// Ephemeral is the sum that counts against ephemeral-storage: emptyDirs on disk, writable layers and logs
// (https://kubernetes.io/docs/concepts/storage/ephemeral-storage/#resource-emphemeralstorage-consumption).
func (d *Use) Ephemeral(pod *corev1.Pod) volume.Use {
	var sum volume.Use
	add := func(u volume.Use) { sum.Bytes, sum.Inodes = sum.Bytes+u.Bytes, sum.Inodes+u.Inodes }
	for i := range pod.Spec.Volumes {
		if u := d.Volumes[pod.Spec.Volumes[i].Name]; pod.Spec.Volumes[i].EmptyDir != nil && !u.Memory {
			add(u)
		}
	}
	for _, u := range d.Layers {
		add(u)
	}
	for _, u := range d.Logs {
		add(u)
	}
	return sum
}

// Meter measures what pods have on disk, and remembers it for a short while.
type Meter struct {
	Volumes pod.Volumes
	Cgroups pod.Cgroups

	mu   sync.Mutex
	uses map[types.UID]*Use
}

// Of measures what a pod has on disk, or returns what was found a short while ago.
func (m *Meter) Of(ctx context.Context, w *pod.Worker, now time.Time) *Use {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.uses[w.UID()]; have != nil && now.Sub(have.At) < fresh {
		return have
	}
	u := &Use{At: now, Volumes: m.Volumes.Uses(ctx, w.Pod()), Layers: map[string]volume.Use{}, Logs: map[string]volume.Use{}}
	for _, run := range w.Seen().Containers {
		if _, done := u.Logs[run.Name]; !done {
			u.Logs[run.Name] = volume.Measure(ctx, filepath.Dir(w.LogPath(run.Name, run.Attempt)))
		}
		if run.State != lifecycle.Running {
			continue
		}
		if layer := m.layer(string(w.UID()), run.ID); layer != "" {
			u.Layers[run.Name] = volume.Measure(ctx, layer)
		}
	}
	if m.uses == nil {
		m.uses = map[types.UID]*Use{}
	}
	for uid, old := range m.uses {
		if now.Sub(old.At) > 10*fresh {
			delete(m.uses, uid)
		}
	}
	if ctx.Err() == nil { // else it is not all
		m.uses[w.UID()] = u
	}
	return u
}

// layer returns the directory with the files that a running container has written. Whatever the runtime, and without asking it:
// containerd measures its snapshots only now and then.
func (m *Meter) layer(uid, container string) string {
	pids, err := m.Cgroups.Processes(uid, container)
	if err != nil || len(pids) == 0 {
		return ""
	}
	return machine.UpperDir(pids[0])
}
