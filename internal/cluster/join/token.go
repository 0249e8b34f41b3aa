// Package join makes a machine part of a cluster: the token that an administrator gives it, the certificate that it gets for the
// token, and the renewal of that.
//
// What flows through it: `knarr token create` makes a [Token], kept as a bootstrap token Secret; [Join] checks the server by the
// token's pin, sends a CertificateSigningRequest, and keeps key and certificate in one directory, as an [Identity]; [Identity.Run]
// renews them. What must stay true: nothing secret is sent to a server before the pin has been found in its certificates; the
// machine's key never leaves it. Tests: TestWhoMayNotJoin (internal/controlplane).
package join

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/server/authn"
)

// Token lets a machine join one cluster: Pin is the SHA-256 of the public key of the cluster's authority, ID and Secret are those
// of a Kubernetes bootstrap token.
type Token struct {
	Pin        [sha256.Size]byte
	ID, Secret string
}

// ServersGroup is the group of tokens that let machines join as servers (auth-extra-groups of the bootstrap token Secret).
const ServersGroup = "system:bootstrappers:knarr-servers"

var tokenPattern = regexp.MustCompile(`^K10([0-9a-f]{64})::([a-z0-9]{6})\.([a-z0-9]{16})$`)

// ParseToken reads what String wrote.
func ParseToken(s string) (t Token, err error) {
	m := tokenPattern.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return t, errors.New("this is no token of Knarr's, which has the form K10<64 hex digits>::<id>.<secret>: make one with knarr token create on a server")
	}
	if _, err := hex.Decode(t.Pin[:], []byte(m[1])); err != nil {
		return t, err
	}
	t.ID, t.Secret = m[2], m[3]
	return t, nil
}

// String returns the token as it is handed over.
func (t Token) String() string { return "K10" + hex.EncodeToString(t.Pin[:]) + "::" + t.Bearer() }

// Bearer is the part that the API server knows.
func (t Token) Bearer() string { return t.ID + "." + t.Secret }

// Pin returns what tokens know an authority by.
func Pin(ca *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(ca.RawSubjectPublicKeyInfo) }

// PinOf is Pin of the first certificate in PEM.
func PinOf(caPEM []byte) (pin [sha256.Size]byte, err error) {
	block, _ := pem.Decode(caPEM)
	if block == nil {
		return pin, errors.New("no certificate in PEM")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return pin, err
	}
	return Pin(ca), nil
}

// NewToken returns a new token for the cluster whose authority has pin.
func NewToken(pin [sha256.Size]byte) Token {
	return Token{Pin: pin, ID: random(6), Secret: random(16)}
}

// random returns n letters and digits that nobody can guess.
func random(n int) string {
	const from = "abcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, 0, n)
	b := make([]byte, 1)
	for len(out) < n {
		_, _ = rand.Read(b) // never fails
		if int(b[0]) < 256/len(from)*len(from) {
			out = append(out, from[int(b[0])%len(from)])
		}
	}
	return string(out)
}

// BootstrapSecret returns the Secret by which the API server knows the token until expires (the zero time: for ever).
func (t Token) BootstrapSecret(description string, expires time.Time) *corev1.Secret {
	data := map[string][]byte{
		"token-id": []byte(t.ID), "token-secret": []byte(t.Secret), "usage-bootstrap-authentication": []byte("true"),
	}
	if description != "" {
		data["description"] = []byte(description)
	}
	if !expires.IsZero() {
		data["expiration"] = []byte(expires.UTC().Format(time.RFC3339))
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: authn.BootstrapTokenPrefix + t.ID},
		Type:       authn.BootstrapTokenType, Data: data,
	}
}

// verify looks for the pinned authority among the certificates of a server, and checks that it vouches for the server's name.
func (t Token) verify(chain []*x509.Certificate, host string, now time.Time) (*x509.Certificate, error) {
	for _, ca := range chain {
		if Pin(ca) != t.Pin {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			return nil, fmt.Errorf("the server's certificate: %w (a further name or address of the server is given to it with --tls-san)", err)
		}
		return ca, nil
	}
	return nil, errors.New("this server is not of the cluster that the token is for: its authority has another fingerprint")
}
