package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

// How long requests are kept, as kube-controller-manager keeps them.
const (
	keepDecided = time.Hour
	keepPending = 24 * time.Hour
)

// longest is how long a certificate is good for unless its request asks for less; shortest is the least that can be asked for.
const (
	longest  = 365 * 24 * time.Hour
	shortest = 10 * time.Minute
)

// step is what to do with a request: at most one of remove, approve, fail, issue.
type step struct {
	remove  bool
	approve string // the subresource that the author must be allowed to create
	fail    string // why the signer cannot sign it
	issue   bool

	commonName    string
	organizations []string
	lifetime      time.Duration

	after time.Duration // when to look again
}

// plan decides what comes next with a request.
func plan(csr *certificatesv1.CertificateSigningRequest, now time.Time) step {
	approved, denied, failed := condition(csr, certificatesv1.CertificateApproved), condition(csr, certificatesv1.CertificateDenied), condition(csr, certificatesv1.CertificateFailed)
	keep, since := keepPending, csr.CreationTimestamp.Time
	for _, c := range []*certificatesv1.CertificateSigningRequestCondition{approved, denied, failed} {
		if c != nil {
			keep = keepDecided
			if c.LastUpdateTime.After(since) {
				since = c.LastUpdateTime.Time
			}
		}
	}
	p := step{after: max(since.Add(keep).Sub(now), time.Second)}
	if !now.Before(since.Add(keep)) {
		return step{remove: true}
	}
	if denied != nil || failed != nil || len(csr.Status.Certificate) > 0 {
		return p
	}
	signer := csr.Spec.SignerName
	if signer != certificatesv1.KubeAPIServerClientKubeletSignerName && signer != certificatesv1.KubeAPIServerClientSignerName {
		return p // somebody else's
	}
	request, why := parse(csr)
	if why == "" && signer == certificatesv1.KubeAPIServerClientKubeletSignerName {
		why = notANodes(request, csr.Spec.Usages)
	}
	switch {
	case approved != nil && why != "":
		p.fail = why
	case approved != nil:
		p.issue, p.commonName, p.organizations, p.lifetime = true, request.Subject.CommonName, request.Subject.Organization, lifetime(csr)
	case why != "" || signer != certificatesv1.KubeAPIServerClientKubeletSignerName:
		// A person decides.
	case csr.Spec.Username == request.Subject.CommonName:
		p.approve = "selfnodeclient"
	default:
		p.approve = "nodeclient"
	}
	return p
}

func condition(csr *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequestCondition {
	for i := range csr.Status.Conditions {
		if c := &csr.Status.Conditions[i]; c.Type == t && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// parse reads the request, and says why no client certificate can be made of it.
func parse(csr *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, string) {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil {
		return nil, "the request is not in PEM"
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err.Error()
	}
	if r.Subject.CommonName == "" {
		return nil, "the request's subject has no common name"
	}
	if !slices.Contains(csr.Spec.Usages, certificatesv1.UsageClientAuth) {
		return nil, fmt.Sprintf("usages are %q; %q is needed", csr.Spec.Usages, certificatesv1.UsageClientAuth)
	}
	for _, u := range csr.Spec.Usages {
		if u != certificatesv1.UsageClientAuth && u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment {
			return nil, fmt.Sprintf("usage %q is not one of a client certificate", u)
		}
	}
	return r, ""
}

// notANodes says what a request lacks to be a node's, or has too much.
func notANodes(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) string {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{"system:nodes"}):
		return "the subject's organization is not system:nodes"
	case len(r.DNSNames) > 0 || len(r.EmailAddresses) > 0 || len(r.IPAddresses) > 0 || len(r.URIs) > 0:
		return "names besides the subject's are not allowed"
	case !strings.HasPrefix(r.Subject.CommonName, "system:node:") || r.Subject.CommonName == "system:node:":
		return "the subject's common name does not begin with system:node:"
	case !slices.Contains(usages, certificatesv1.UsageDigitalSignature):
		return "the usage digital signature is missing"
	}
	return ""
}

func lifetime(csr *certificatesv1.CertificateSigningRequest) time.Duration {
	if s := csr.Spec.ExpirationSeconds; s != nil {
		return min(max(time.Duration(*s)*time.Second, shortest), longest)
	}
	return longest
}
