package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// ensureAuthority reads BASE.crt and BASE.key, or makes what is missing. A key without its certificate is what a crash
// leaves behind; the certificate made again for the same key verifies everything the lost one did. A certificate
// without its key is damage. name is the authority's common name.
func ensureAuthority(base, name string, now time.Time) (authority, error) {
	crt, key := base+".crt", base+".key"
	switch haveCrt, haveKey := exists(crt), exists(key); {
	case !haveCrt && !haveKey:
		k, err := newKey()
		if err != nil {
			return authority{}, err
		}
		return newAuthority(base, name, k, now)
	case !haveCrt:
		k, err := readKey(key)
		if err != nil {
			return authority{}, err
		}
		return newAuthority(base, name, k, now)
	case !haveKey:
		return authority{}, fmt.Errorf("%s is there but %s is missing: restore it from a backup, or move the certificate away to start with a new authority (every client then needs a new certificate)", crt, key)
	}
	pair, err := readPair(base)
	if err != nil {
		return authority{}, err
	}
	switch c := pair.Leaf; {
	case !c.IsCA:
		return authority{}, fmt.Errorf("%s is not the certificate of an authority", crt)
	case now.After(c.NotAfter):
		return authority{}, fmt.Errorf("%s expired on %s", crt, c.NotAfter.Format(time.DateOnly))
	}
	signer, err := ecdsaKey(pair.PrivateKey)
	if err != nil {
		return authority{}, fmt.Errorf("%s: %w", key, err)
	}
	return authority{cert: pair.Leaf, key: signer, pem: encodeCert(pair.Leaf.Raw)}, nil
}

func newAuthority(base, name string, key *ecdsa.PrivateKey, now time.Time) (authority, error) {
	serial, err := newSerial()
	if err != nil {
		return authority{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.Add(caLifetime).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("making the certificate authority %s: %w", name, err)
	}
	if err := writePair(base, der, key); err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert: cert, key: key, pem: encodeCert(der)}, err
}

// leaf describes a certificate to be issued.
type leaf struct {
	subject  pkix.Name
	dns      []string
	ips      []net.IP
	usage    []x509.ExtKeyUsage
	lifetime time.Duration
}

// sign issues a certificate for pub. It never outlives the authority.
func (a *authority) sign(l leaf, pub any, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	end := now.Add(l.lifetime)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               l.subject,
		DNSNames:              l.dns,
		IPAddresses:           l.ips,
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              end.UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           l.usage,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate for %q: %w", l.subject.CommonName, err)
	}
	return der, nil
}

// pool returns a pool that trusts this authority only.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue makes a key and a certificate for it.
func (a *authority) issue(l leaf, now time.Time) (*tls.Certificate, *ecdsa.PrivateKey, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	der, err := a.sign(l, key.Public(), now)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, key, nil
}

// IssueClient makes a client certificate for user cn, member of the groups orgs, and returns it and its key in PEM. A node's
// is IssueClient("system:node:NAME", []string{"system:nodes"}, 0). A ttl of 0 means a year.
func (p *PKI) IssueClient(cn string, orgs []string, ttl time.Duration) (certPEM, keyPEM []byte, err error) {
	if cn == "" {
		return nil, nil, errors.New("a client certificate needs a user name")
	}
	l := clientLeaf(cn, orgs)
	if ttl > 0 {
		l.lifetime = ttl
	}
	cert, key, err := p.ca.issue(l, p.params.Now())
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	return encodeCert(cert.Certificate[0]), keyPEM, err
}

// SignRequest issues a client certificate for the key in a PEM certificate request, so that a machine's key never
// leaves it. Only the key is taken from the request: who it is for is the caller's decision.
func (p *PKI) SignRequest(csrPEM []byte, cn string, orgs []string, ttl time.Duration) (certPEM []byte, err error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("not a certificate request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed by its own key: %w", err)
	}
	l := clientLeaf(cn, orgs)
	if ttl > 0 {
		l.lifetime = ttl
	}
	der, err := p.ca.sign(l, csr.PublicKey, p.params.Now())
	if err != nil {
		return nil, err
	}
	return encodeCert(der), nil
}

// clientLeaf is a client certificate as Kubernetes reads it: the common name is the user, organizations are the groups.
func clientLeaf(cn string, orgs []string) leaf {
	return leaf{
		subject:  pkix.Name{CommonName: cn, Organization: orgs},
		usage:    []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		lifetime: leafLifetime,
	}
}

func newSerial() (*big.Int, error) {
	// RFC 5280 4.1.2.2: positive, at most 20 octets, and not to be guessed.
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
