package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// TaintNodesByCondition taints each new node as not ready, so that no pod is put there before its agent has reported. The node
// lifecycle controller takes the taint away.
type TaintNodesByCondition struct{}

// Name implements admission.Plugin.
func (TaintNodesByCondition) Name() string { return "TaintNodesByCondition" }

// Admit implements admission.Plugin.
func (TaintNodesByCondition) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.Nodes || a.Operation != admission.Create || a.Subresource != "" {
		return nil
	}
	node := a.Object.(*corev1.Node)
	for _, t := range node.Spec.Taints {
		if t.Key == corev1.TaintNodeNotReady && t.Effect == corev1.TaintEffectNoSchedule {
			return nil
		}
	}
	node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
	return nil
}

// Validate implements admission.Plugin.
func (TaintNodesByCondition) Validate(context.Context, *admission.Attributes) error { return nil }
