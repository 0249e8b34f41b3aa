package plugins

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// Certificates writes into a CertificateSigningRequest who made it, lets only those decide about it or sign it who hold the
// verbs approve and sign on its signer, and refuses requests that would give system:masters away. These are Kubernetes'
// CertificateApproval, CertificateSigning and CertificateSubjectRestriction
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
	if a.Resource != api.CertificateSigningRequests {
		return nil
	}
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

// signer checks a verb on the request's signer, or on all signers of its domain.
func (p Certificates) signer(ctx context.Context, a *admission.Attributes, verb string) error {
	name := a.Old.(*certificatesv1.CertificateSigningRequest).Spec.SignerName
	domain, _, _ := strings.Cut(name, "/")
	for _, n := range []string{name, domain + "/*"} {
		d, _, err := p.Authorizer.Authorize(ctx, &authz.Attributes{
			User: a.User, Verb: verb, IsResource: true, Group: certificatesv1.GroupName, Version: "v1", Resource: "signers", Name: n,
		})
		if err == nil && d == authz.Allow {
			return nil
		}
	}
	return forbidden(a, "user not permitted to %s requests with signerName %q", verb, name)
}

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
	if slices.Contains(csr.Subject.Organization, user.SystemPrivilegedGroup) {
		return forbidden(a, "use of %s signer with %s group is not allowed", spec.SignerName, user.SystemPrivilegedGroup)
	}
	return nil
}
