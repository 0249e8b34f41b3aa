package report

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// The node says of its runtime what the runtime says of itself.
func TestNodeStatusShowsTheRuntimesFeatures(t *testing.T) {
	n := NewNode(Settings{Name: "n1", Runtime: runtime.NewFake(runtime.FakeOptions{})})
	var s corev1.NodeStatus
	n.nodeStatus(t.Context(), &s)
	if f := s.Features; f == nil || f.SupplementalGroupsPolicy == nil || !*f.SupplementalGroupsPolicy {
		t.Errorf("features: %+v", f)
	}
	if len(s.RuntimeHandlers) != 1 || !*s.RuntimeHandlers[0].Features.RecursiveReadOnlyMounts || !*s.RuntimeHandlers[0].Features.UserNamespaces {
		t.Errorf("runtime handlers: %+v", s.RuntimeHandlers)
	}
}
