package node

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

func withClass(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.RuntimeClassName = &name }
}

func TestRuntimeHandler(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		clienttest.Create(t, w.c, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "boxed"}, Handler: "gvisor"})
		w.create(testPod("p", withClass("boxed")))
		w.wait(5 * time.Second)
		list, err := w.rt.ListPodSandbox(context.Background(), nil)
		if err != nil || len(list) != 1 || list[0].RuntimeHandler != "gvisor" {
			t.Errorf("sandboxes: %v, %v", list, err)
		}
		// The class decides when the pod starts, and a missing one is said.
		w.create(testPod("r", withClass("nothing")))
		w.wait(5 * time.Second)
		w.expectEvent("r", "FailedCreatePodSandBox", `Failed to create pod sandbox: the RuntimeClass of the pod: runtimeclasses.node.k8s.io "nothing" not found`)
	})
}
