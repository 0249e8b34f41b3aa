package plugins

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// Certificates writes into a CertificateSigningRequest who made it, lets only those decide about it or sign it who hold the
// verbs approve and sign on its signer, and refuses requests that would give system:masters away. It lets only those publish a signer's
// trust bundle who hold attest on it, and only those answer a PodCertificateRequest who hold sign. These are Kubernetes'
// CertificateApproval, CertificateSigning, CertificateSubjectRestriction and ClusterTrustBundleAttest
// (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization).
type Certificates struct{ Authorizer authz.Authorizer }

// Name implements admission.Plugin.
func (Certificates) Name() string { return "Certificates" }

// Admit implements admission.Plugin.
func (Certificates) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != api.CertificateSigningRequests || a.Operation != admission.Create || a.Subresource != "" {
		return nil
	}
	spec := &a.Object.(*certificatesv1.CertificateSigningRequest).Spec
	spec.Username, spec.UID, spec.Groups, spec.Extra = "", "", nil, nil
	if a.User == nil {
		return nil
	}
	spec.Username, spec.UID, spec.Groups = a.User.GetName(), a.User.GetUID(), slices.Clone(a.User.GetGroups())
	for k, v := range a.User.GetExtra() {
		if spec.Extra == nil {
			spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		spec.Extra[k] = v
	}
	return nil
}

// Validate implements admission.Plugin.
func (p Certificates) Validate(ctx context.Context, a *admission.Attributes) error {
	switch a.Resource {
	case api.CertificateSigningRequests:
		return p.signingRequest(ctx, a)
	case api.ClusterTrustBundles:
		return p.attest(ctx, a)
	case api.PodCertificateRequests:
		return p.podRequest(ctx, a)
	}
	return nil
}

func (p Certificates) signingRequest(ctx context.Context, a *admission.Attributes) error {
	switch {
	case a.Operation == admission.Create && a.Subresource == "":
		return restrictSubject(a)
	case a.Operation != admission.Update || a.User == nil:
		return nil
	case a.Subresource == "approval":
		return p.signer(ctx, a, "approve")
	case a.Subresource == "status":
		now, old := a.Object.(*certificatesv1.CertificateSigningRequest), a.Old.(*certificatesv1.CertificateSigningRequest)
		if equality.Semantic.DeepEqual(now.Status, old.Status) {
			return nil
		}
		return p.signer(ctx, a, "sign")
	}
	return nil
}

// signer checks a verb on the request's signer.
func (p Certificates) signer(ctx context.Context, a *admission.Attributes, verb string) error {
	name := a.Old.(*certificatesv1.CertificateSigningRequest).Spec.SignerName
	if p.may(ctx, a.User, verb, name) {
		return nil
	}
	return forbidden(a, "user not permitted to %s requests with signerName %q", verb, name)
}

// may reports whether who holds a verb on a signer, or on all signers of its domain.
func (p Certificates) may(ctx context.Context, who user.Info, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, n := range []string{signer, domain + "/*"} {
		d, _, err := p.Authorizer.Authorize(ctx, &authz.Attributes{
			User: who, Verb: verb, IsResource: true, Group: certificatesv1.GroupName, Version: "v1", Resource: "signers", Name: n,
		})
		if err == nil && d == authz.Allow {
			return true
		}
	}
	return false
}

// attest checks who says which authorities a signer's certificates are verified by. An update that changes nothing but what the garbage
// collector does, is anyone's.
func (p Certificates) attest(ctx context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Create && a.Operation != admission.Update || a.User == nil {
		return nil
	}
	bundle := a.Object.(*certificatesv1.ClusterTrustBundle)
	signer := bundle.Spec.SignerName
	if signer == "" {
		return nil
	}
	if a.Operation == admission.Update && equality.Semantic.DeepEqual(withoutOwners(bundle), withoutOwners(a.Old.(*certificatesv1.ClusterTrustBundle))) {
		return nil
	}
	if p.may(ctx, a.User, "attest", signer) {
		return nil
	}
	return forbidden(a, "user not permitted to attest for signerName %q", signer)
}

// withoutOwners returns the bundle without what the garbage collector changes, and without what changes by itself.
func withoutOwners(b *certificatesv1.ClusterTrustBundle) *certificatesv1.ClusterTrustBundle {
	c := *b
	c.ResourceVersion, c.Generation, c.ManagedFields, c.OwnerReferences, c.Finalizers = "", 0, nil, nil, nil
	return &c
}

// podRequest checks who answers a PodCertificateRequest.
func (p Certificates) podRequest(ctx context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Update || a.Subresource != "status" || a.User == nil {
		return nil
	}
	now, old := a.Object.(*certificatesv1.PodCertificateRequest), a.Old.(*certificatesv1.PodCertificateRequest)
	if equality.Semantic.DeepEqual(now.Status, old.Status) || p.may(ctx, a.User, "sign", old.Spec.SignerName) {
		return nil
	}
	return apierrors.NewInvalid(api.PodCertificateRequests.GroupVersionKind.GroupKind(), a.Key.Name, field.ErrorList{field.Forbidden(field.NewPath("spec", "signerName"),
		fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", a.User.GetName(), old.Spec.SignerName))})
}

// restrictSubject keeps the groups from which nothing is withheld, out of requests that a person may approve by their name alone.
func restrictSubject(a *admission.Attributes) error {
	spec := &a.Object.(*certificatesv1.CertificateSigningRequest).Spec
	if spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	block, _ := pem.Decode(spec.Request)
	if block == nil {
		return forbidden(a, "unable to parse the certificate request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return forbidden(a, "unable to parse the certificate request: %w", err)
	}
	for _, group := range []string{user.SystemPrivilegedGroup, pki.ServersGroup} {
		if slices.Contains(csr.Subject.Organization, group) {
			return forbidden(a, "use of %s signer with %s group is not allowed", spec.SignerName, group)
		}
	}
	return nil
}
