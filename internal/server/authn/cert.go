package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/asn1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/lru"
)

// credentialID is the key of a user's extra value that tells one credential from another in audit trails (KEP-4193).
const credentialID = "authentication.kubernetes.io/credential-id"

// ClientCert authenticates the client certificate of a TLS connection, which the TLS layer must have verified
// (tls.VerifyClientCertIfGiven): the common name is the user, the organizations are the groups, and the subject may have a UID.
type ClientCert struct {
	now   func() time.Time
	known *lru.Cache // *x509.Certificate, one per connection -> *user.DefaultInfo
}

// NewClientCert returns a ClientCert. now is the clock, time.Now if nil.
func NewClientCert(now func() time.Time) *ClientCert {
	if now == nil {
		now = time.Now
	}
	return &ClientCert{now: now, known: lru.New(1024)}
}

// Authenticate implements Authenticator.
func (c *ClientCert) Authenticate(r *http.Request) (user.Info, bool, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	cert := r.TLS.PeerCertificates[0]
	// The handshake may have been long ago.
	if c.now().After(cert.NotAfter) {
		return nil, false, errors.New("the client certificate has expired")
	}
	if who, ok := c.known.Get(cert); ok {
		return who.(*user.DefaultInfo), true, nil
	}
	who, err := userOf(cert)
	if who == nil || err != nil {
		return nil, false, err
	}
	c.known.Add(cert, who)
	return who, true, nil
}

func userOf(cert *x509.Certificate) (*user.DefaultInfo, error) {
	if cert.Subject.CommonName == "" {
		return nil, nil
	}
	uid, err := uidOf(cert)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(cert.Raw)
	return authenticated(&user.DefaultInfo{
		Name:   cert.Subject.CommonName,
		UID:    uid,
		Groups: slices.Clone(cert.Subject.Organization),
		Extra:  map[string][]string{credentialID: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
	}), nil
}

// uidOf returns the UID in a certificate's subject, under Kubernetes' own object identifier
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates), or "" where there is none.
func uidOf(cert *x509.Certificate) (uid string, err error) {
	have := false
	for _, n := range cert.Subject.Names {
		if !n.Type.Equal(asn1.X509UID()) {
			continue
		}
		if have {
			return "", errors.New("the client certificate has several UIDs")
		}
		have = true
		if uid, _ = n.Value.(string); uid == "" {
			return "", errors.New("the UID in the client certificate is empty or not a string")
		}
	}
	return uid, nil
}
