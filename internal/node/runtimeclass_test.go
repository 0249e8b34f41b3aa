package node

import (
	"context"
	"strings"
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
		// A runtime that is really there is asked first what it has.
		w.agent.cfg.Hollow = false
		_, err = w.agent.runtimeHandler(context.Background(), testPod("q", withClass("boxed")))
		w.agent.cfg.Hollow = true
		if err == nil || !strings.Contains(err.Error(), `RuntimeClass "boxed" asks for handler "gvisor", which the container runtime of this node does not have; it has:`) {
			t.Errorf("an unknown handler: %v", err)
		}
		if _, err := w.agent.runtimeHandler(context.Background(), testPod("r", withClass("nothing"))); err == nil || !strings.Contains(err.Error(), `"nothing" not found`) {
			t.Errorf("an unknown class: %v", err)
		}
		if h, err := w.agent.runtimeHandler(context.Background(), testPod("s")); h != "" || err != nil {
			t.Errorf("no class: %q, %v", h, err)
		}
	})
}
