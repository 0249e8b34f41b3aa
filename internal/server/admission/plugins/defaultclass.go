package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// defaultIngress are the annotations that make an IngressClass the default one.
var defaultIngress = []string{networkingv1.AnnotationIsDefaultIngressClass}

// DefaultStorageClass gives claims that ask for no class the default one. A claim with the class "" asks for none.
type DefaultStorageClass struct{ Reader admission.Reader }

// Name implements admission.Plugin.
func (DefaultStorageClass) Name() string { return "DefaultStorageClass" }

// Admit implements admission.Plugin.
func (p DefaultStorageClass) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.PersistentVolumeClaims || a.Operation != admission.Create || a.Subresource != "" {
		return nil
	}
	claim := a.Object.(*corev1.PersistentVolumeClaim)
	if _, annotated := claim.Annotations[corev1.BetaStorageClassAnnotation]; annotated || claim.Spec.StorageClassName != nil {
		return nil
	}
	claim.Spec.StorageClassName = defaultClass(p.Reader, api.StorageClasses, volume.DefaultClassAnnotations())
	return nil
}

// Validate implements admission.Plugin.
func (DefaultStorageClass) Validate(context.Context, *admission.Attributes) error { return nil }

// DefaultIngressClass gives ingresses that name no class, in spec or by annotation, the default one.
type DefaultIngressClass struct{ Reader admission.Reader }

// Name implements admission.Plugin.
func (DefaultIngressClass) Name() string { return "DefaultIngressClass" }

// Admit implements admission.Plugin.
func (p DefaultIngressClass) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.Ingresses || a.Operation != admission.Create || a.Subresource != "" {
		return nil
	}
	ingress := a.Object.(*networkingv1.Ingress)
	if _, annotated := ingress.Annotations[networkingv1beta1.AnnotationIngressClass]; annotated || ingress.Spec.IngressClassName != nil {
		return nil
	}
	ingress.Spec.IngressClassName = defaultClass(p.Reader, api.IngressClasses, defaultIngress)
	return nil
}

// Validate implements admission.Plugin.
func (DefaultIngressClass) Validate(context.Context, *admission.Attributes) error { return nil }

// defaultClass returns the name of the class that one of annotations makes the default, or nil. Of several it is the newest, of
// several of one second the first by name.
func defaultClass(reader admission.Reader, classes *api.Resource, annotations []string) *string {
	var chosen api.Object
	reader.List(classes, "", func(o api.Object) bool {
		for _, key := range annotations {
			if o.GetAnnotations()[key] == "true" && (chosen == nil || newer(o, chosen)) {
				chosen = o
			}
		}
		return true
	})
	if chosen == nil {
		return nil
	}
	name := chosen.GetName()
	return &name
}

func newer(a, b api.Object) bool {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	if x.Equal(&y) {
		return a.GetName() < b.GetName()
	}
	return y.Before(&x)
}
