package diskuse

import (
	"context"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/task"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// counting are volumes of one size that count how often they are measured.
type counting struct {
	pod.Volumes
	bytes uint64
	walks int
}

func (c *counting) Uses(context.Context, *corev1.Pod) map[string]volume.Use {
	c.walks++
	return map[string]volume.Use{"v": {Bytes: c.bytes}}
}

// noCgroups has no processes.
type noCgroups struct{ pod.Cgroups }

func (noCgroups) Processes(string, string) ([]int, error) { return nil, os.ErrNotExist }

// worker returns a worker of a pod of which nothing runs.
func worker(t *testing.T, name string) *pod.Worker {
	t.Helper()
	var tasks task.Group // never open: the worker takes no step
	set := pod.NewSet(&pod.Host{Tasks: &tasks})
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}}
	set.Update(p)
	return set.Get(p.UID)
}

func TestFilesAreWalkedOnceInAWhile(t *testing.T) {
	volumes := &counting{bytes: 7}
	m := &Meter{Volumes: volumes, Cgroups: noCgroups{}}
	w, now := worker(t, "a"), time.Unix(1000, 0)
	for _, after := range []time.Duration{0, time.Second, fresh - 1} {
		if u := m.Of(t.Context(), w, now.Add(after)); u.Volumes["v"].Bytes != 7 || !u.At.Equal(now) {
			t.Errorf("after %s: %+v", after, u)
		}
	}
	if volumes.walks != 1 {
		t.Errorf("walked %d times within %s", volumes.walks, fresh)
	}
	if u := m.Of(t.Context(), w, now.Add(fresh)); volumes.walks != 2 || !u.At.Equal(now.Add(fresh)) {
		t.Errorf("not walked again after %s: %+v", fresh, u)
	}
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	m.Of(cut, w, now.Add(time.Minute))
	if m.Of(t.Context(), w, now.Add(time.Minute)); volumes.walks != 4 {
		t.Error("a walk that was cut short is remembered")
	}
}

func TestEphemeralStorage(t *testing.T) {
	p := &corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{
		{Name: "disk", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
	}}}
	u := Use{
		Volumes: map[string]volume.Use{"disk": {Bytes: 1, Inodes: 1}, "memory": {Bytes: 10, Memory: true}, "config": {Bytes: 100}},
		Layers:  map[string]volume.Use{"a": {Bytes: 1000, Inodes: 2}, "b": {Bytes: 2000}},
		Logs:    map[string]volume.Use{"a": {Bytes: 10000, Inodes: 1}},
	}
	if sum := u.Ephemeral(p); sum.Bytes != 13001 || sum.Inodes != 4 {
		t.Errorf("%+v: want the emptyDir on disk, layers and logs", sum)
	}
}
