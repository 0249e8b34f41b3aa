package plugins

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// PodTopologyLabels gives a pod the zone and region of its node as labels when it is bound, or created on a node, so that its containers
// can read them through the downward API (KEP-4742).
type PodTopologyLabels struct{ Reader admission.Reader }

// topologyLabels are those that are copied.
var topologyLabels = [...]string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

// Name implements admission.Plugin.
func (PodTopologyLabels) Name() string { return "PodTopologyLabels" }

// Admit implements admission.Plugin.
func (p PodTopologyLabels) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.Pods || a.Operation != admission.Create {
		return nil
	}
	switch o := a.Object.(type) {
	case *corev1.Pod:
		o.Labels = p.labelled(o.Labels, o.Spec.NodeName)
	case *corev1.Binding: // its labels become the pod's
		if o.Target.Kind == "Node" {
			o.Labels = p.labelled(o.Labels, o.Target.Name)
		}
	}
	return nil
}

// labelled returns labels with those of a node's topology, which go first.
func (p PodTopologyLabels) labelled(labels map[string]string, node string) map[string]string {
	if node == "" {
		return labels
	}
	obj, ok := p.Reader.Get(api.Nodes, api.Key{Name: node})
	if !ok {
		return labels
	}
	var out map[string]string
	for _, key := range topologyLabels {
		value, ok := obj.GetLabels()[key]
		if !ok {
			continue
		}
		if out == nil {
			if out = maps.Clone(labels); out == nil {
				out = make(map[string]string, len(topologyLabels))
			}
		}
		out[key] = value
	}
	if out == nil {
		return labels
	}
	return out
}

// Validate implements admission.Plugin.
func (PodTopologyLabels) Validate(context.Context, *admission.Attributes) error { return nil }
