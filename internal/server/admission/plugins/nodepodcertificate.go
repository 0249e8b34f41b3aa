package plugins

import (
	"context"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// verbPodCertificateSigner lets a node have certificates of a signer that no volume of the pod names.
const verbPodCertificateSigner = "request-serviceaccounts-podcertificate-signer"

// podCertificate checks a PodCertificateRequest: a node may ask only for pods that run on it, as the service account that they run as, and
// of signers that their volumes name (KEP-4317). What a copy that lags behind could get wrong, is an error that retries may mend.
func (p NodeRestriction) podCertificate(ctx context.Context, a *admission.Attributes, node string) error {
	switch {
	case a.Operation != admission.Create:
		return forbidden(a, "unexpected operation %v", a.Operation)
	case a.Subresource != "":
		return forbidden(a, "unexpected subresource %v", a.Subresource)
	}
	req, namespace := &a.Object.(*certificatesv1.PodCertificateRequest).Spec, a.Key.Namespace
	if string(req.NodeName) != node {
		return forbidden(a, "PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", req.NodeName, node)
	}
	of := fmt.Sprintf("%s/%s", namespace, req.PodName)
	obj, ok := p.Reader.Get(api.Nodes, api.Key{Name: node})
	switch {
	case !ok:
		return missing(api.Nodes, node)
	case obj.GetUID() != req.NodeUID:
		return mismatch("PodCertificateRequest for pod %q names node UID %q, inconsistent with the running node (%q)", of, req.NodeUID, obj.GetUID())
	}
	if obj, ok = p.Reader.Get(api.Pods, api.Key{Namespace: namespace, Name: req.PodName}); !ok {
		return missing(api.Pods, req.PodName)
	}
	pod := obj.(*corev1.Pod)
	switch {
	case pod.UID != req.PodUID:
		return mismatch("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod %q", of, req.PodUID, pod.UID)
	case pod.Spec.NodeName != node:
		return forbidden(a, "pod %q is not running on node %q named in the PodCertificateRequest", of, node)
	case isMirror(pod):
		return forbidden(a, "pod %q is a mirror pod", of)
	case pod.Spec.ServiceAccountName != req.ServiceAccountName:
		return forbidden(a, "PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)",
			of, req.ServiceAccountName, pod.Spec.ServiceAccountName)
	}
	obj, ok = p.Reader.Get(api.ServiceAccounts, api.Key{Namespace: namespace, Name: req.ServiceAccountName})
	switch {
	case !ok:
		return missing(api.ServiceAccounts, req.ServiceAccountName)
	case obj.GetUID() != req.ServiceAccountUID:
		return mismatch("PodCertificateRequest for pod %q names service account UID %q, which differs from the running service account (%q)",
			of, req.ServiceAccountUID, obj.GetUID())
	}
	return p.signerOf(ctx, a, pod, req)
}

// signerOf checks that the pod wants a certificate of the signer, or that the node may ask for one nevertheless.
func (p NodeRestriction) signerOf(ctx context.Context, a *admission.Attributes, pod *corev1.Pod, req *certificatesv1.PodCertificateRequestSpec) error {
	if asksForCertificate(&pod.Spec, req.SignerName) {
		return nil
	}
	why := ""
	if p.Authorizer != nil {
		// A resource's name holds no slash: it is written as in the names of trust bundles.
		d, _, err := p.Authorizer.Authorize(ctx, &authz.Attributes{User: a.User, Verb: verbPodCertificateSigner, IsResource: true,
			Version: "v1", Resource: strings.ReplaceAll(req.SignerName, "/", ":"), Namespace: a.Key.Namespace, Name: req.ServiceAccountName})
		if d == authz.Allow {
			return nil
		}
		if err != nil {
			why = ": " + err.Error()
		}
	}
	return forbidden(a, "pod %q does not mount a podCertificate projected volume for signer %q%s", pod.Namespace+"/"+pod.Name, req.SignerName, why)
}

// asksForCertificate reports whether a projected volume has a certificate of the signer.
func asksForCertificate(spec *corev1.PodSpec, signer string) bool {
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.PodCertificate != nil && s.PodCertificate.SignerName == signer {
				return true
			}
		}
	}
	return false
}

func missing(res *api.Resource, name string) error {
	return apierrors.NewNotFound(res.GroupResource(), name)
}

func mismatch(format string, args ...any) error {
	return apierrors.NewInternalError(fmt.Errorf(format, args...))
}
