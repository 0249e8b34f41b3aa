package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"

	"github.com/knarr-io/knarr/internal/pki"
)

// signers are the signers of a cluster, and what each says of a request that it does not sign
// (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers).
var signers = map[string]func(*x509.CertificateRequest, []certificatesv1.KeyUsage) string{
	certificatesv1.KubeAPIServerClientSignerName:        notAClients,
	certificatesv1.KubeAPIServerClientKubeletSignerName: notANodes,
	certificatesv1.KubeletServingSignerName:             notAServingNodes,
	// Nothing is said of what it may be used for, and no pod trusts it by itself: whoever approves it knows.
	certificatesv1beta1.LegacyUnknownSignerName: func(*x509.CertificateRequest, []certificatesv1.KeyUsage) string { return "" },
}

// parse reads the request, and says why no certificate can be made of it.
func parse(csr *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, string) {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil {
		return nil, "the request is not in PEM"
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	switch {
	case err != nil:
		return nil, err.Error()
	case slices.Contains(r.Subject.Organization, pki.ServersGroup):
		return nil, fmt.Sprintf("organization %s is for the servers of the cluster", pki.ServersGroup)
	}
	return r, ""
}

// notAClients says what keeps a request from being one of a client of the API.
func notAClients(_ *x509.CertificateRequest, usages []certificatesv1.KeyUsage) string {
	for _, u := range usages {
		if u != certificatesv1.UsageClientAuth && u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment {
			return fmt.Sprintf("invalid usage for client certificate: %s", u)
		}
	}
	if !slices.Contains(usages, certificatesv1.UsageClientAuth) {
		return fmt.Sprintf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return ""
}

// notANodes says what a request lacks to be a node's, or has too much.
func notANodes(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) string {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{"system:nodes"}):
		return "subject organization is not system:nodes"
	case len(r.DNSNames) > 0 || len(r.EmailAddresses) > 0 || len(r.IPAddresses) > 0 || len(r.URIs) > 0:
		return "subjectAltNames are not allowed"
	case !strings.HasPrefix(r.Subject.CommonName, "system:node:") || r.Subject.CommonName == "system:node:":
		return "subject common name does not begin with system:node:"
	}
	return notJust(usages, certificatesv1.UsageClientAuth)
}

// notAServingNodes says what a request lacks to be that of a node's own server, or has too much.
func notAServingNodes(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) string {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{"system:nodes"}):
		return "subject organization is not system:nodes"
	case len(r.DNSNames) == 0 && len(r.IPAddresses) == 0:
		return "DNS or IP subjectAltName is required"
	case len(r.EmailAddresses) > 0 || len(r.URIs) > 0:
		return "Email and URI subjectAltNames are not allowed"
	case !strings.HasPrefix(r.Subject.CommonName, "system:node:") || r.Subject.CommonName == "system:node:":
		return "subject common name does not begin with system:node:"
	}
	return notJust(usages, certificatesv1.UsageServerAuth)
}

// notJust says what usages are, if not digital signature and one kind of authentication, with or without key encipherment, which RSA keys
// need.
func notJust(usages []certificatesv1.KeyUsage, auth certificatesv1.KeyUsage) string {
	wanted := map[certificatesv1.KeyUsage]bool{certificatesv1.UsageDigitalSignature: true, auth: true}
	for _, u := range usages {
		delete(wanted, u)
		if u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment && u != auth {
			wanted[u] = true
		}
	}
	if len(wanted) == 0 {
		return ""
	}
	return fmt.Sprintf("usages did not match [%s %s %s]", certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, auth)
}
