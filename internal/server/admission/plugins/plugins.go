// Package plugins is Kubernetes' built-in admission: what is filled in and what is refused beyond an object's own
// validation, because of other objects - its namespace, service account, priority class, limits and quotas - or because of who asks.
//
// What flows through it: the front door calls [Default]'s chain for every write. One file per plugin; each is named as
// kube-apiserver's --enable-admission-plugins names it. What must stay true: a plugin looks at the resource first and costs a
// comparison where it has nothing to say; it reads the shared copy and keeps no state; messages are Kubernetes' own, for
// clients and tests that look for them. Tests: TestQuotaUnderContention, TestNodeRestriction, TestPodSecurity.
package plugins

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// Config is what the plugins work with.
type Config struct {
	// Reader is the shared copy.
	Reader admission.Reader
	// RBAC holds what users may grant; Authorizer decides who may escalate nevertheless.
	RBAC       *authz.RBAC
	Authorizer authz.Authorizer
	// Quotas writes the status of ResourceQuotas; a client.Client will do.
	Quotas StatusWriter
	// Configured are the policies and webhooks that the cluster's users configure: those that change objects first. They see what the other
	// plugins have made of an object, and go before quotas are charged.
	Configured []admission.Plugin
}

// StatusWriter updates an object's subresource, with a conflict error if it is not current.
type StatusWriter interface {
	Update(ctx context.Context, obj api.Object, sub string) (api.Object, error)
}

// Default returns the plugins that are on, in the order in which kube-apiserver runs them.
func Default(cfg Config) admission.Chain {
	chain := admission.Chain{
		NamespaceLifecycle{cfg.Reader},
		LimitRanger{cfg.Reader},
		ServiceAccount{cfg.Reader},
		NodeRestriction{Reader: cfg.Reader, Authorizer: cfg.Authorizer},
		TaintNodesByCondition{},
		PodSecurity{cfg.Reader},
		Priority{cfg.Reader},
		DefaultTolerationSeconds{},
		DefaultStorageClass{cfg.Reader},
		StorageObjectInUseProtection{},
		LocalVolumeNode{},
		PersistentVolumeClaimResize{cfg.Reader},
		RuntimeClass{cfg.Reader},
		PodTopologyLabels{cfg.Reader},
		Certificates{Authorizer: cfg.Authorizer},
		DefaultIngressClass{cfg.Reader},
		DeviceAccess{Reader: cfg.Reader, Authorizer: cfg.Authorizer},
		RBACEscalation{Reader: cfg.Reader, RBAC: cfg.RBAC, Authorizer: cfg.Authorizer},
	}
	return append(append(chain, cfg.Configured...), ResourceQuota{Reader: cfg.Reader, Quotas: cfg.Quotas})
}

// forbidden is a 403 about the object that is written.
func forbidden(a *admission.Attributes, format string, args ...any) *apierrors.StatusError {
	name := a.Key.Name
	if name == "" && a.Object != nil {
		name = a.Object.GetGenerateName()
	}
	return apierrors.NewForbidden(a.Resource.GroupResource(), name, fmt.Errorf(format, args...))
}

// newPod returns the pod that is being created, or nil if something else happens.
func newPod(a *admission.Attributes) *corev1.Pod {
	if a.Resource != api.Pods || a.Operation != admission.Create || a.Subresource != "" {
		return nil
	}
	return a.Object.(*corev1.Pod)
}
