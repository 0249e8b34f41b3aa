package plugins

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// verbTokenAudience lets a node have tokens for an audience that no volume of the pod names
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction).
const verbTokenAudience = "request-serviceaccounts-token-audience"

// token checks a TokenRequest: a node may have tokens only for pods that run on it, bound to them, and for the audiences that they ask
// for (ServiceAccountNodeAudienceRestriction, KEP-4412).
func (p NodeRestriction) token(ctx context.Context, a *admission.Attributes, node string) error {
	if a.Operation != admission.Create || a.Subresource != "token" {
		return nil
	}
	req, ok := a.Object.(*authenticationv1.TokenRequest)
	if !ok {
		return forbidden(a, "unexpected type %T", a.Object)
	}
	ref := req.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return forbidden(a, "node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return forbidden(a, "node requested token with a pod binding without a uid")
	}
	obj, ok := p.Reader.Get(api.Pods, api.Key{Namespace: a.Key.Namespace, Name: ref.Name})
	if !ok {
		return apierrors.NewNotFound(api.Pods.GroupResource(), ref.Name)
	}
	if obj.GetUID() != ref.UID {
		return forbidden(a, "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	pod := obj.(*corev1.Pod)
	if pod.Spec.NodeName != node {
		return forbidden(a, "node requested token bound to a pod scheduled on a different node")
	}
	return p.audience(ctx, a, pod, req.Spec.Audiences)
}

// audience checks for whom a token of the pod is to be good. No audience is that of the API server, which a volume asks for by naming
// none.
func (p NodeRestriction) audience(ctx context.Context, a *admission.Attributes, pod *corev1.Pod, audiences []string) error {
	wanted := ""
	switch len(audiences) {
	case 0:
	case 1:
		wanted = audiences[0]
	default:
		return forbidden(a, "node may only request 0 or 1 audiences")
	}
	if asksForAudience(&pod.Spec, wanted) {
		return nil
	}
	why := ""
	if p.Authorizer != nil {
		d, _, err := p.Authorizer.Authorize(ctx, &authz.Attributes{User: a.User, Verb: verbTokenAudience, IsResource: true,
			Version: "v1", Resource: wanted, Namespace: a.Key.Namespace, Name: a.Key.Name})
		if d == authz.Allow {
			return nil
		}
		if err != nil {
			why = ": " + err.Error()
		}
	}
	return forbidden(a, "%s is not authorized to request tokens for audience %q%s", a.User.GetName(), wanted, why)
}

// asksForAudience reports whether a projected volume has a token for the audience.
func asksForAudience(spec *corev1.PodSpec, audience string) bool {
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience {
				return true
			}
		}
	}
	return false
}
