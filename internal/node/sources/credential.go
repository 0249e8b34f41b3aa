package sources

import (
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// credential is a key and the certificate that a signer gave for it, for one source of a volume; pending is a request that has not been
// answered, for the first certificate or for the next one.
//
//	nothing ──request──> pending ──issued──> fresh ──time to refresh──> fresh and pending ──issued──> fresh ...
//	                        └──denied, failed──> refused, for good
type credential struct {
	key, chain         []byte // PEM; none before the first is issued
	refresh, notAfter  time.Time
	pending            *pendingRequest
	refused            string
	overdue, forgotten bool // that it should have been refreshed, or has expired, was said already
}

// pendingRequest is a PodCertificateRequest that was made.
type pendingRequest struct {
	name string
	key  []byte // PEM
	made time.Time
}

// Times of a credential. A certificate that was to be refreshed so long ago is overdue; a request that is gone is not made anew before.
const (
	overdueAfter = 10 * time.Minute
	remakeAfter  = time.Minute
	// lookAgain is when a credential that waits for its refresh is looked at, for events.
	lookAgain = time.Minute
)

// step is what to do next about a credential.
type step int

const (
	keep    step = iota // nothing
	request             // ask for a certificate
	adopt               // take that of the answer
	refuse              // give up
)

// next decides what to do. answer is the pending request as it is now, nil if it is gone. reason and message are those of an event where it is
// refused.
func (c *credential) next(answer *certificatesv1.PodCertificateRequest, now time.Time) (do step, reason, message string) {
	switch {
	case c.refused != "":
		return keep, "", ""
	case c.pending == nil:
		if c.chain == nil || !now.Before(c.refresh) {
			return request, "", ""
		}
		return keep, "", ""
	case answer == nil:
		if now.Before(c.pending.made.Add(remakeAfter)) {
			return keep, "", ""
		}
		return request, "", ""
	}
	for _, cond := range answer.Status.Conditions {
		name := answer.Namespace + "/" + answer.Name
		switch cond.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied:
			return refuse, cond.Type, fmt.Sprintf("PodCertificateRequest %s was denied, reason=%q, message=%q", name, cond.Reason, cond.Message)
		case certificatesv1.PodCertificateRequestConditionTypeFailed:
			return refuse, cond.Type, fmt.Sprintf("PodCertificateRequest %s failed, reason=%q, message=%q", name, cond.Reason, cond.Message)
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			return adopt, "", ""
		}
	}
	return keep, "", ""
}

// late returns the reason and message of an event that the certificate should have been refreshed, once, or has expired, once.
func (c *credential) late(now time.Time) (reason, message string) {
	switch {
	case c.chain == nil:
	case now.After(c.notAfter) && !c.forgotten:
		c.overdue, c.forgotten = true, true
		return "CertificateExpired", "PodCertificate expired"
	case now.After(c.refresh.Add(overdueAfter)) && !c.overdue:
		c.overdue = true
		return "CertificateOverdueForRefresh", "PodCertificate refresh overdue"
	}
	return "", ""
}

// renew returns when the credential is to be looked at again by itself.
func (c *credential) renew(now time.Time) time.Time {
	if c.pending == nil && now.Before(c.refresh) {
		return c.refresh
	}
	return now.Add(lookAgain)
}
