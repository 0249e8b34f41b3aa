package plugins

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// NamespaceLifecycle keeps objects out of namespaces that do not exist or are being deleted, and the system's namespaces from
// being deleted.
type NamespaceLifecycle struct{ Reader admission.Reader }

// Name implements admission.Plugin.
func (NamespaceLifecycle) Name() string { return "NamespaceLifecycle" }

// Admit implements admission.Plugin.
func (p NamespaceLifecycle) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource == api.Namespaces {
		if a.Operation == admission.Delete && immortal(a.Key.Name) {
			return apierrors.NewForbidden(a.Resource.GroupResource(), a.Key.Name, fmt.Errorf("this namespace may not be deleted"))
		}
		return nil
	}
	if a.Key.Namespace == "" || a.Operation != admission.Create {
		return nil
	}
	obj, ok := p.Reader.Get(api.Namespaces, api.Key{Name: a.Key.Namespace})
	if !ok {
		return apierrors.NewNotFound(api.Namespaces.GroupResource(), a.Key.Namespace)
	}
	ns := obj.(*corev1.Namespace)
	if ns.Status.Phase != corev1.NamespaceTerminating && ns.DeletionTimestamp == nil {
		return nil
	}
	err := forbidden(a, "unable to create new content in namespace %s because it is being terminated", a.Key.Namespace)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", a.Key.Namespace),
		Field:   "metadata.namespace",
	})
	return err
}

// Validate implements admission.Plugin.
func (NamespaceLifecycle) Validate(context.Context, *admission.Attributes) error { return nil }

func immortal(namespace string) bool {
	switch namespace {
	case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease:
		return true
	}
	return false
}
