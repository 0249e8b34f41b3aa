package pod

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// runtimeHandler returns the runtime's name for what the pod's RuntimeClass asks for (KEP-585); "" is the runtime's default.
func (h *Host) runtimeHandler(ctx context.Context, pod *corev1.Pod) (string, error) {
	name := pod.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	class, err := client.Get[*nodev1.RuntimeClass](ctx, h.Client, api.Key{Name: *name})
	if err != nil {
		return "", fmt.Errorf("the RuntimeClass of the pod: %w", err)
	}
	if h.Node.Hollow {
		return class.Handler, nil
	}
	st, err := h.Runtime.Status(ctx)
	if err != nil {
		return "", err
	}
	var known []string
	for _, handler := range st.GetRuntimeHandlers() {
		if handler.Name != "" {
			known = append(known, handler.Name)
		}
	}
	// A runtime that does not list its handlers finds out by itself.
	if len(st.GetRuntimeHandlers()) > 0 && !slices.Contains(known, class.Handler) {
		return "", fmt.Errorf("RuntimeClass %q asks for handler %q, which the container runtime of this node does not have; it has: %s",
			class.Name, class.Handler, strings.Join(known, ", "))
	}
	return class.Handler, nil
}
