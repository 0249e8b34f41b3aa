package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// sized gives the pod's container a request and a limit of processor time and memory: "cpu memory".
func sized(requests, limits string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: amounts(requests), Limits: amounts(limits)}
	}
}

func amounts(s string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i, f := range strings.Fields(s) {
		l[[]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}[i]] = resource.MustParse(f)
	}
	return l
}

// resizePod asks for other resources, as kubectl patch --subresource resize does.
func (w *world) resizePod(name, requests, limits string) {
	w.t.Helper()
	p := w.pod(name).DeepCopy()
	sized(requests, limits)(p)
	if _, err := w.c.Update(context.Background(), p, "resize"); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// resources says what the pod's container has, and how its resize stands: allocated, limits, conditions, restarts.
func (w *world) resources(name string) string {
	p := w.pod(name)
	c := p.Status.ContainerStatuses[0]
	out := fmt.Sprintf("%s %s %s/%s", c.AllocatedResources.Cpu(), c.AllocatedResources.Memory(), c.Resources.Limits.Cpu(), c.Resources.Limits.Memory())
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodResizePending || cond.Type == corev1.PodResizeInProgress {
			out += fmt.Sprintf(" %s:%s", cond.Type, cond.Reason)
		}
	}
	if c.RestartCount > 0 {
		out += fmt.Sprintf(" restarts=%d", c.RestartCount)
	}
	return out
}

func (w *world) expectResources(name, want string) {
	w.t.Helper()
	if got := w.resources(name); got != want {
		w.t.Errorf("%s has %q, want %q", name, got, want)
	}
}

// given is what the runtime has been told for the pod's container.
func (w *world) given(name string) string {
	w.t.Helper()
	list, err := w.rt.ListContainers(context.Background(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range list {
		st, err := w.rt.ContainerStatus(context.Background(), c.Id)
		if err == nil && c.Labels[lifecycle.LabelPodName] == name && st.FinishedAt == 0 {
			r := st.Resources.Linux
			return fmt.Sprintf("shares %d quota %d memory %d", r.CpuShares, r.CpuQuota, r.MemoryLimitInBytes)
		}
	}
	return ""
}

func TestResizeInPlace(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("p", sized("500m 100Mi", "1 200Mi")))
		w.wait(5 * time.Second)
		w.expectResources("p", "500m 100Mi 1/200Mi")
		w.resizePod("p", "1 200Mi", "1500m 300Mi")
		w.wait(5 * time.Second)
		w.expectResources("p", "1 200Mi 1500m/300Mi")
		if got, want := w.given("p"), "shares 1024 quota 150000 memory 314572800"; got != want {
			t.Errorf("the runtime was given %s, want %s", got, want)
		}
		if p := w.pod("p"); p.Status.ObservedGeneration != p.Generation {
			t.Errorf("observed generation %d of %d", p.Status.ObservedGeneration, p.Generation)
		}
		w.resizePod("p", "250m 50Mi", "500m 100Mi")
		w.wait(5 * time.Second)
		w.expectResources("p", "250m 50Mi 500m/100Mi")
	})
}

func TestResizeRestartsWherePolicySaysSo(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("p", sized("500m 100Mi", "1 200Mi"), func(p *corev1.Pod) {
			p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
		}))
		w.wait(5 * time.Second)
		w.resizePod("p", "600m 100Mi", "1 200Mi")
		w.wait(5 * time.Second)
		w.expectResources("p", "600m 100Mi 1/200Mi")
		// Twice: such a restart is no crash, and does not wait.
		w.resizePod("p", "600m 100Mi", "1 300Mi")
		w.wait(40 * time.Second)
		w.expectResources("p", "600m 100Mi 1/300Mi restarts=1")
		w.resizePod("p", "600m 100Mi", "1 400Mi")
		w.wait(40 * time.Second)
		w.expectResources("p", "600m 100Mi 1/400Mi restarts=2")
	})
}

func TestResizeWaitsForRoom(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) { // a node of 4 CPUs
		w.create(testPod("other", sized("3 1Gi", "")))
		w.create(testPod("p", sized("500m 100Mi", "")))
		w.wait(5 * time.Second)
		w.resizePod("p", "5 100Mi", "")
		w.wait(5 * time.Second)
		w.expectResources("p", "500m 100Mi 0/0 PodResizePending:Infeasible")
		w.resizePod("p", "2 100Mi", "")
		w.wait(5 * time.Second)
		w.expectResources("p", "500m 100Mi 0/0 PodResizePending:Deferred")
		if c := w.given("p"); !strings.HasPrefix(c, "shares 512 ") {
			t.Errorf("the runtime was given %s before there was room", c)
		}
		// An agent that is restarted goes on where the last one was.
		w.stop()
		w.start()
		w.wait(5 * time.Second)
		w.expectResources("p", "500m 100Mi 0/0 PodResizePending:Deferred")
		w.delete("other")
		w.wait(40 * time.Second)
		w.expectResources("p", "2 100Mi 0/0")
		// What was asked for is taken back before there is room.
		w.create(testPod("third", sized("2 1Gi", "")))
		w.wait(5 * time.Second)
		w.resizePod("p", "3 100Mi", "")
		w.wait(5 * time.Second)
		w.expectResources("p", "2 100Mi 0/0 PodResizePending:Deferred")
		w.resizePod("p", "2 100Mi", "")
		w.wait(5 * time.Second)
		w.expectResources("p", "2 100Mi 0/0")
		// Another pod that shrinks makes room, too.
		w.resizePod("p", "3 100Mi", "")
		w.resizePod("third", "1 1Gi", "")
		w.wait(5 * time.Second)
		w.expectResources("p", "3 100Mi 0/0")
	})
}

func TestResizeTriesAgain(t *testing.T) {
	broken := true
	opts := runtime.FakeOptions{Fail: func(method, _ string) error {
		if broken && method == "UpdateContainerResources" {
			return errors.New("the kernel says no")
		}
		return nil
	}}
	inBubble(t, opts, func(w *world) {
		w.create(testPod("p", sized("500m 100Mi", "")))
		w.wait(5 * time.Second)
		w.resizePod("p", "1 100Mi", "")
		w.wait(5 * time.Second)
		w.expectResources("p", "1 100Mi 0/0 PodResizeInProgress:Error")
		if p := w.pod("p"); p.Status.ContainerStatuses[0].Resources.Requests.Cpu().String() != "500m" {
			t.Errorf("what runs is told as %v, though nothing has changed", p.Status.ContainerStatuses[0].Resources.Requests)
		}
		w.stop()
		broken = false
		w.start()
		w.wait(15 * time.Second)
		w.expectResources("p", "1 100Mi 0/0")
		if c := w.given("p"); !strings.HasPrefix(c, "shares 1024 ") {
			t.Errorf("the runtime was given %s", c)
		}
	})
}
