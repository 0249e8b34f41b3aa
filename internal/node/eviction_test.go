package node

import (
	"context"
	"testing"
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

func TestFullVolumeEndsThePod(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		limit := resource.MustParse("1Mi")
		w.create(testPod("p", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
		}))
		w.create(testPod("q"))
		w.wait(5 * time.Second)
		w.agent.volumes = fullVolumes{bytes: 1 << 20}
		w.agent.evictOverDisk(context.Background(), w.agent.allWorkers(), time.Now())
		w.wait(5 * time.Second)
		w.expect("p", "Running c=running+ready")
		w.agent.volumes = fullVolumes{bytes: 1<<20 + 1}
		w.agent.evictOverDisk(context.Background(), w.agent.allWorkers(), time.Now().Add(time.Minute))
		w.wait(5 * time.Second) // not the thirty seconds of its grace
		if p := w.pod("p"); p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted" || p.Status.Message != `Usage of EmptyDir volume "v" exceeds the limit "1Mi". ` {
			t.Errorf("the pod is %s %s %q", p.Status.Phase, p.Status.Reason, p.Status.Message)
		}
		w.expect("q", "Running c=running+ready")
	})
}

func TestLowMemoryEndsOnePodAtATime(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("modest", sized("100m 2Gi", "")))
		w.create(testPod("greedy", sized("100m 100Mi", "")))
		w.wait(5 * time.Second)
		w.agent.cgroups = heavyCgroups{}
		w.agent.evictOne(context.Background(), w.agent.allWorkers(), corev1.ResourceMemory, w.agent.memoryUse)
		if !evicting(w.agent.allWorkers()) {
			t.Error("another one would go before the first has ended")
		}
		w.wait(5 * time.Second)
		p := w.pod("greedy")
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted" || p.Status.Message != "The node was low on resource: memory. " ||
			condition(p, corev1.DisruptionTarget) != corev1.ConditionTrue {
			t.Errorf("the greedy pod: %+v", p.Status)
		}
		w.expect("modest", "Running c=running+ready")
		if evicting(w.agent.allWorkers()) {
			t.Error("the end of the first is waited for, though it has ended")
		}
		// Meanwhile the node takes no more pods that ask for nothing.
		w.agent.mu.Lock()
		w.agent.pressure = w.agent.pressure.Next(lifecycle.Shortage{Memory: "short"}, time.Now())
		w.agent.mu.Unlock()
		for _, test := range []struct {
			pod  *corev1.Pod
			want bool
		}{{testPod("x"), true}, {testPod("y", sized("1m 1Mi", "")), false}} {
			if f := w.agent.pressed(test.pod, false); (f != nil) != test.want {
				t.Errorf("%s refused: %v", test.pod.Name, f)
			}
		}
	})
}
