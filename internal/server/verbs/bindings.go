package verbs

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/discovery"
)

// BindingResource is the older way to bind pods: bindings that are posted to a collection of their own.
var BindingResource = corev1.SchemeGroupVersion.WithResource("bindings")

// BindingKinds is it for discovery.
func BindingKinds() []discovery.Review {
	return []discovery.Review{{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Binding"), Plural: BindingResource.Resource, Singular: "binding", Namespaced: true,
	}}
}

// Bindings answers a call of [BindingResource]: it is one of the pod's subresource, whose name is in the body.
func (v *Verbs) Bindings(c *call.Call) error {
	t := c.Target
	switch {
	case t.Name != "":
		return call.ErrNoPath()
	case t.Verb != "create" || t.Namespace == "":
		return call.ErrMethod(t)
	}
	t.Known = true
	if err := c.Negotiate(nil); err != nil {
		return err
	}
	obj, err := c.Decode(corev1.SchemeGroupVersion.WithKind("Binding"), &corev1.Binding{}, metav1.FieldValidationIgnore)
	if err != nil {
		return err
	}
	if t.Name = obj.(*corev1.Binding).Name; t.Name == "" {
		return apierrors.NewBadRequest("metadata.name must be the name of the pod")
	}
	t.Res, t.Resource, t.Subresource = api.Pods, api.Pods.Plural, "binding"
	if err := v.fresh(c); err != nil {
		return err
	}
	return v.binding(c)
}
