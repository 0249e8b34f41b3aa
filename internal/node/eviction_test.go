package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-io/knarr/internal/node/cgroup"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// fullVolumes are volumes with so many bytes in each.
type fullVolumes struct {
	noVolumes
	bytes uint64
}

func (v fullVolumes) Uses(_ context.Context, pod *corev1.Pod) map[string]volume.Use {
	out := map[string]volume.Use{}
	for i := range pod.Spec.Volumes {
		out[pod.Spec.Volumes[i].Name] = volume.Use{Bytes: v.bytes}
	}
	return out
}

// heavyCgroups say that each pod holds so much memory.
type heavyCgroups struct{ noCgroups }

func (heavyCgroups) PodUsage(string) (cgroup.Usage, error) {
	return cgroup.Usage{WorkingSet: 1 << 30}, nil
}

// tend does what a heartbeat of a node with a machine does, at a time of its own.
func (w *world) tend(after time.Duration) {
	w.agent.upkeep.Idle.Store(false)
	w.agent.upkeep.Tend(context.Background(), time.Now().Add(after))
	w.agent.upkeep.Idle.Store(true)
	w.wait(5 * time.Second)
}

func TestFullVolumeEndsThePod(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.agent.upkeep.Rooms = func() lifecycle.Rooms { return lifecycle.Rooms{} }
		limit := resource.MustParse("1Mi")
		w.create(testPod("p", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
		}))
		w.create(testPod("q"))
		w.wait(5 * time.Second)
		w.agent.upkeep.Disks.Volumes = fullVolumes{bytes: 1 << 20}
		w.tend(0)
		w.expect("p", "Running c=running+ready")
		w.agent.upkeep.Disks.Volumes = fullVolumes{bytes: 1<<20 + 1}
		w.tend(time.Minute) // and five seconds: not the thirty of its grace
		if p := w.pod("p"); p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted" || p.Status.Message != `Usage of EmptyDir volume "v" exceeds the limit "1Mi". ` {
			t.Errorf("the pod is %s %s %q", p.Status.Phase, p.Status.Reason, p.Status.Message)
		}
		w.expect("q", "Running c=running+ready")
	})
}

func TestLowMemoryEndsOnePodAtATime(t *testing.T) {
	slow := runtime.FakeOptions{Behave: behave(map[string]runtime.Behaviour{"c": {StopTakes: 500 * time.Millisecond}})}
	inBubble(t, slow, func(w *world) {
		w.create(testPod("modest", sized("100m 2Gi", "")))
		w.create(testPod("greedy", sized("100m 100Mi", "")))
		w.wait(5 * time.Second)
		short := lifecycle.Rooms{Memory: lifecycle.Room{Left: 1 << 20, Total: 1 << 30}}
		w.agent.upkeep.Cgroups, w.agent.upkeep.Rooms = heavyCgroups{}, func() lifecycle.Rooms { return short }
		w.agent.upkeep.Idle.Store(false)
		for range 3 { // three heartbeats while the first ends
			w.agent.upkeep.Tend(context.Background(), time.Now())
			synctest.Wait()
		}
		w.agent.upkeep.Idle.Store(true)
		w.wait(5 * time.Second)
		p := w.pod("greedy")
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted" || p.Status.Message != "The node was low on resource: memory. " ||
			condition(p, corev1.DisruptionTarget) != corev1.ConditionTrue {
			t.Errorf("the greedy pod: %+v", p.Status)
		}
		w.expect("modest", "Running c=running+ready")
		w.tend(0) // the first has ended, and memory is still short
		if p := w.pod("modest"); p.Status.Reason != "Evicted" {
			t.Errorf("the modest pod is %s: the end of the first is waited for, though it has ended", say(p))
		}
	})
}

func TestImagesGoBeforePods(t *testing.T) {
	inBubble(t, runtime.FakeOptions{Images: []string{"docker.io/library/img:1", "unused:1"}}, func(w *world) {
		w.create(testPod("p"))
		w.wait(5 * time.Second)
		full := lifecycle.Rooms{Disk: lifecycle.Room{Left: 1, Total: 100}}
		w.agent.upkeep.DataDir = t.TempDir()
		w.agent.upkeep.ImageGCLow = 0 // whatever this machine's disk is like
		w.agent.upkeep.Rooms = func() lifecycle.Rooms { return full }
		w.tend(0)
		if left, err := w.rt.ListImages(context.Background(), nil); err != nil || len(left) != 1 {
			t.Errorf("%v, %v: want the image that is used, and no other", left, err)
		}
	})
}
