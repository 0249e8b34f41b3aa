package kubelet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"
)

// certificateTime is how long a certificate is valid, as that of a kubelet which makes its own; another is made when two thirds are over.
const certificateTime = 365 * 24 * time.Hour

// certificate is one that vouches for itself, as a kubelet's does by default: clients either do not verify it (--kubelet-insecure-tls) or go
// through the API server. It lives as long as the process.
type certificate struct {
	node    string
	address netip.Addr
	now     func() time.Time

	mu   sync.Mutex
	pair *tls.Certificate
}

// current returns the certificate, or a new one.
func (c *certificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pair != nil && c.now().Before(c.pair.Leaf.NotAfter.Add(-certificateTime/3)) {
		return c.pair, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key for the kubelet port: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("making a certificate for the kubelet port: %w", err)
	}
	now := c.now()
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "system:node:" + c.node, Organization: []string{"system:nodes"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateTime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{c.node}, IPAddresses: []net.IP{c.address.AsSlice()}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for the kubelet port: %w", err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("making a certificate for the kubelet port: %w", err)
	}
	c.pair = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return c.pair, nil
}
