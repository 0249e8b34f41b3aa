package certificates

import (
	"crypto/x509"
	"encoding/pem"
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

	usages   usages
	lifetime time.Duration

	after time.Duration // when to look again
}

// plan decides what comes next with a request.
func plan(csr *certificatesv1.CertificateSigningRequest, now time.Time) step {
	end := expiry(csr)
	if !now.Before(end) {
		return step{remove: true}
	}
	p := step{after: max(end.Sub(now), time.Second)}
	approved, denied, failed := condition(csr, certificatesv1.CertificateApproved), condition(csr, certificatesv1.CertificateDenied), condition(csr, certificatesv1.CertificateFailed)
	judge, ours := signers[csr.Spec.SignerName]
	if denied != nil || failed != nil || len(csr.Status.Certificate) > 0 || !ours {
		return p
	}
	request, why := parse(csr)
	if why == "" {
		why = judge(request, csr.Spec.Usages)
	}
	wanted, unknown := usagesOf(csr.Spec.Usages)
	if why == "" {
		why = unknown
	}
	switch {
	case approved != nil && why != "":
		p.fail = why
	case approved != nil:
		p.issue, p.usages, p.lifetime = true, wanted, lifetime(csr)
	case why != "" || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName:
		// A person decides.
	case csr.Spec.Username == request.Subject.CommonName:
		p.approve = "selfnodeclient"
	default:
		p.approve = "nodeclient"
	}
	return p
}

// expiry returns when a request is to be removed.
func expiry(csr *certificatesv1.CertificateSigningRequest) time.Time {
	since, keep := csr.CreationTimestamp.Time, keepPending
	for i := range csr.Status.Conditions {
		c := &csr.Status.Conditions[i]
		if c.LastUpdateTime.After(since) {
			since = c.LastUpdateTime.Time
		}
		if c.Type != certificatesv1.CertificateApproved || len(csr.Status.Certificate) > 0 {
			keep = keepDecided // approved and not signed yet is pending
		}
	}
	end := since.Add(keep)
	if block, _ := pem.Decode(csr.Status.Certificate); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && cert.NotAfter.Before(end) {
			return cert.NotAfter
		}
	}
	return end
}

func condition(csr *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequestCondition {
	for i := range csr.Status.Conditions {
		if c := &csr.Status.Conditions[i]; c.Type == t && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

func lifetime(csr *certificatesv1.CertificateSigningRequest) time.Duration {
	if s := csr.Spec.ExpirationSeconds; s != nil {
		return min(max(time.Duration(*s)*time.Second, shortest), longest)
	}
	return longest
}
