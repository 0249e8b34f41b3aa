package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

func TestTheRuntimeIsAskedForTheHandler(t *testing.T) {
	h := &Host{Client: clienttest.New(t), Runtime: runtime.NewFake(runtime.FakeOptions{})}
	for class, handler := range map[string]string{"boxed": "gvisor"} {
		clienttest.Create(t, h.Client, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Handler: handler})
	}
	for class, want := range map[string]string{
		"":        "",
		"nothing": `! "nothing" not found`,
		"boxed":   `! RuntimeClass "boxed" asks for handler "gvisor", which the container runtime of this node does not have; it has:`,
	} {
		p := &corev1.Pod{}
		if class != "" {
			p.Spec.RuntimeClassName = &class
		}
		got, err := h.runtimeHandler(t.Context(), p)
		if message, fails := strings.CutPrefix(want, "! "); fails {
			if err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("class %q: %q, %v; want an error with %s", class, got, err, message)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("class %q: %q, %v; want %q", class, got, err, want)
		}
	}
}
