package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// DefaultTolerationSeconds lets pods that do not say otherwise stay for five minutes on a node that is not ready or cannot be
// reached.
type DefaultTolerationSeconds struct{}

// Name implements admission.Plugin.
func (DefaultTolerationSeconds) Name() string { return "DefaultTolerationSeconds" }

// Admit implements admission.Plugin.
func (DefaultTolerationSeconds) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.Pods || a.Subresource != "" || a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	spec := &a.Object.(*corev1.Pod).Spec
	for _, key := range [...]string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !tolerates(spec.Tolerations, key) {
			seconds := int64(300)
			spec.Tolerations = append(spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
		}
	}
	return nil
}

// tolerates tells whether the pod has thought about taint key itself, be it in general.
func tolerates(tolerations []corev1.Toleration, key string) bool {
	for i := range tolerations {
		t := &tolerations[i]
		if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}

// Validate implements admission.Plugin.
func (DefaultTolerationSeconds) Validate(context.Context, *admission.Attributes) error { return nil }
