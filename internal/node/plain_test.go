package node

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

func TestImagesThatAreVolumes(t *testing.T) {
	inBubble(t, runtime.FakeOptions{Images: []string{"docker.io/library/img:1", "docker.io/library/x:1"}}, func(w *world) {
		with := func(reference string, policy corev1.PullPolicy) func(*corev1.Pod) {
			return func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "files", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: reference, PullPolicy: policy}}}}
			}
		}
		w.create(testPod("a", with("files", corev1.PullIfNotPresent)))
		w.expect("a", "Running c=running+ready")
		w.create(testPod("b", with("other", corev1.PullNever)))
		w.expect("b", "Pending c=waiting:ErrImageNeverPull")
		if err := w.agent.host.Images.Collect(context.Background(), w.agent.pods.Pods(), 85, 80, func() (int, error) { return 90, nil }); err != nil {
			t.Fatal(err)
		}
		left, err := w.rt.ListImages(context.Background(), nil)
		var names []string
		for _, i := range left {
			names = append(names, i.RepoTags...)
		}
		slices.Sort(names)
		if want := []string{"docker.io/library/files:latest", "docker.io/library/img:1"}; err != nil || !slices.Equal(names, want) {
			t.Errorf("images left on a full disk: %v, %v; want those that pods use, %v", names, err, want)
		}
	})
}

// flaky is a client whose writes fail while it is off.
type flaky struct {
	client.Client
	off atomic.Bool
}

func (f *flaky) UpdateMany(ctx context.Context, objs []api.Object, sub string) []client.Result {
	if !f.off.Load() {
		return f.Client.UpdateMany(ctx, objs, sub)
	}
	out := make([]client.Result, len(objs))
	for i := range out {
		out[i].Err = context.DeadlineExceeded
	}
	return out
}

func TestStatusIsWrittenWhenTheAPIIsBack(t *testing.T) {
	var f *flaky
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		f.off.Store(true)
		w.create(testPod("a"))
		w.wait(time.Minute)
		w.expect("a", "Pending")
		if len(w.rt.ContainerIDs()) != 1 {
			t.Error("the container waits for the API")
		}
		f.off.Store(false)
		w.wait(10 * time.Second)
		w.expect("a", "Running c=running+ready")
	}, func(c *Config) {
		f = &flaky{Client: c.Client}
		c.Client = f
	})
}

func TestOthersConditionsSurvive(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a", func(p *corev1.Pod) {
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
		}))
		if s := condition(w.pod("a"), corev1.PodReady); s != corev1.ConditionFalse {
			t.Errorf("Ready is %s without the gate", s)
		}
		_, err := client.Mutate(context.Background(), w.c, api.Key{Namespace: "default", Name: "a"}, "status", func(p *corev1.Pod) bool {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/lb", Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		w.wait(time.Second)
		p := w.pod("a")
		if condition(p, corev1.PodReady) != corev1.ConditionTrue || condition(p, "example.com/lb") != corev1.ConditionTrue {
			t.Errorf("%+v", p.Status.Conditions)
		}
	})
}

// The controller of nodes takes a node for lost that is alive, and marks its pods; nothing else about them changes.
func TestPodsThatWereMarkedNotReadyAreReadyAgain(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a"))
		w.expect("a", "Running c=running+ready")
		for round := range 3 {
			_, err := client.Mutate(context.Background(), w.c, api.Key{Namespace: "default", Name: "a"}, "status", func(p *corev1.Pod) bool {
				for i := range p.Status.Conditions {
					if p.Status.Conditions[i].Type == corev1.PodReady {
						p.Status.Conditions[i].Status = corev1.ConditionFalse
					}
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			w.wait(time.Second)
			if p := w.pod("a"); condition(p, corev1.PodReady) != corev1.ConditionTrue {
				t.Errorf("round %d: %+v", round, p.Status.Conditions)
			}
		}
	})
}
