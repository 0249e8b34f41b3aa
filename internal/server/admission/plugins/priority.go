package plugins

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// Priority turns a pod's priorityClassName into its priority and preemption policy.
type Priority struct{ Reader admission.Reader }

// Name implements admission.Plugin.
func (Priority) Name() string { return "Priority" }

// Admit implements admission.Plugin.
func (p Priority) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.Pods || a.Subresource != "" {
		return nil
	}
	switch a.Operation {
	case admission.Create:
		return p.set(a, &a.Object.(*corev1.Pod).Spec)
	case admission.Update:
		// Clients that do not know the fields leave them out; they are not to be lost.
		spec, old := &a.Object.(*corev1.Pod).Spec, &a.Old.(*corev1.Pod).Spec
		if spec.Priority == nil {
			spec.Priority = old.Priority
		}
		if spec.PreemptionPolicy == nil {
			spec.PreemptionPolicy = old.PreemptionPolicy
		}
	}
	return nil
}

func (p Priority) set(a *admission.Attributes, spec *corev1.PodSpec) error {
	var value int32
	lower := corev1.PreemptLowerPriority
	policy := &lower
	if name := spec.PriorityClassName; name != "" {
		obj, ok := p.Reader.Get(api.PriorityClasses, api.Key{Name: name})
		if !ok {
			return forbidden(a, "no PriorityClass with name %v was found", name)
		}
		class := obj.(*schedulingv1.PriorityClass)
		value, policy = class.Value, class.PreemptionPolicy
	} else if class := p.globalDefault(); class != nil {
		spec.PriorityClassName, value, policy = class.Name, class.Value, class.PreemptionPolicy
	}
	if spec.Priority != nil && *spec.Priority != value {
		return forbidden(a, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *spec.Priority, value)
	}
	if spec.PreemptionPolicy != nil && policy != nil && *spec.PreemptionPolicy != *policy {
		return forbidden(a, "the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *spec.PreemptionPolicy, *policy)
	}
	spec.Priority = &value
	if policy != nil {
		own := *policy
		spec.PreemptionPolicy = &own
	}
	return nil
}

// globalDefault returns the class for pods that name none: that with globalDefault, the lowest if a race has made several.
func (p Priority) globalDefault() (found *schedulingv1.PriorityClass) {
	p.Reader.List(api.PriorityClasses, "", func(o api.Object) bool {
		if c := o.(*schedulingv1.PriorityClass); c.GlobalDefault && (found == nil || c.Value < found.Value) {
			found = c
		}
		return true
	})
	return found
}

// Validate implements admission.Plugin.
func (p Priority) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.PriorityClasses || a.Subresource != "" || a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	if !a.Object.(*schedulingv1.PriorityClass).GlobalDefault {
		return nil
	}
	if d := p.globalDefault(); d != nil && d.Name != a.Key.Name {
		return forbidden(a, "PriorityClass %v is already marked as default. Only one default can exist", d.Name)
	}
	return nil
}

// Creator is what BootstrapPriorityClasses needs of a client.Client.
type Creator interface {
	Create(ctx context.Context, obj api.Object) (api.Object, error)
}

// BootstrapPriorityClasses makes the two classes that every cluster has, if they are missing.
func BootstrapPriorityClasses(ctx context.Context, c Creator) error {
	policy := corev1.PreemptLowerPriority
	for _, class := range []*schedulingv1.PriorityClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "system-node-critical"}, Value: 2_000_001_000,
			Description: "Used for system critical pods that must not be moved from their current node."},
		{ObjectMeta: metav1.ObjectMeta{Name: "system-cluster-critical"}, Value: 2_000_000_000,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."},
	} {
		class.PreemptionPolicy = &policy
		if _, err := c.Create(ctx, class); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("making PriorityClass %s: %w", class.Name, err)
		}
	}
	return nil
}
