package node

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// sandboxID returns the one sandbox of the runtime that is ready.
func (w *world) sandboxID() string {
	w.t.Helper()
	ready := &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}
	list, err := w.rt.ListPodSandbox(context.Background(), ready)
	if err != nil || len(list) != 1 {
		w.t.Fatal(list, err)
	}
	return list[0].Id
}

func TestALinkThatWasDeletedIsSaid(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a"))
		before := w.pod("a").Status
		w.agent.LinkLost(context.Background(), w.sandboxID(), nil) // the network made it anew
		w.wait(time.Second)
		w.expectEvent("a", "NetworkLinkLost", "The pod's network link was deleted from outside; it was made anew")
		w.expect("a", "Running c=running+ready")
		if after := w.pod("a").Status; after.PodIP != before.PodIP || after.ContainerStatuses[0].ContainerID != before.ContainerStatuses[0].ContainerID {
			t.Errorf("the pod was changed: %s, %s", after.PodIP, say(w.pod("a")))
		}
	})
}

func TestAPodWhoseLinkCannotBeMadeAnewGetsANewSandbox(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a"))
		old := w.sandboxID()
		h := w.follow(readiness)
		w.agent.LinkLost(context.Background(), old, errors.New("its namespace is gone"))
		w.wait(5 * time.Second)
		h.stop()
		w.expectEvent("a", "NetworkLinkLost", "The pod's network link was deleted from outside and could not be made anew; the pod gets a new sandbox: its namespace is gone")
		w.expect("a", "Running c=running+ready*1")
		if w.sandboxID() == old {
			t.Error("the sandbox is the old one")
		}
		unready := false
		for _, line := range h.lines["a"] {
			unready = unready || line[:11] == "Ready=False"
		}
		if !unready {
			t.Errorf("the pod was never said to be unready: %q", h.lines["a"])
		}
	})
}

// KEP-5067: the status and every condition that the kubelet writes say which generation of the pod they are about.
func TestObservedGenerationFollowsThePod(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.create(testPod("a", func(p *corev1.Pod) {
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
		}))
		expect := func() {
			t.Helper()
			p := w.pod("a")
			if p.Status.ObservedGeneration != p.Generation {
				t.Errorf("the status is of generation %d, the pod of %d", p.Status.ObservedGeneration, p.Generation)
			}
			for _, want := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodReadyToStartContainers} {
				found := false
				for _, c := range p.Status.Conditions {
					if c.Type == want {
						found = c.ObservedGeneration == p.Generation
					}
				}
				if !found {
					t.Errorf("generation %d: %s is missing or of another: %+v", p.Generation, want, p.Status.Conditions)
				}
			}
		}
		expect()
		p := w.pod("a").DeepCopy()
		p.Spec.Containers[0].Image = "img:2"
		if _, err := w.c.Update(context.Background(), p, ""); err != nil {
			t.Fatal(err)
		}
		w.wait(5 * time.Second)
		if g := w.pod("a").Generation; g != 2 {
			t.Fatalf("generation %d after another image", g)
		}
		expect()
		w.delete("a")
		w.wait(time.Second)
	})
}
