package pki

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// short is the life below which a certificate that was asked for ends when it was asked to end, though it begins a little early.
const short = 8 * time.Hour

// SignAsRequested issues the certificate that a PEM certificate request asks for: subject and names are the request's, which the caller has
// judged. It is never an authority, never outlives the cluster's and never makes its bearer a server of the cluster.
func (p *PKI) SignAsRequested(csrPEM []byte, usage x509.KeyUsage, extended []x509.ExtKeyUsage, lifetime time.Duration) (certPEM []byte, err error) {
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
	if slices.Contains(csr.Subject.Organization, ServersGroup) {
		return nil, fmt.Errorf("organization %s is for the servers of the cluster, which issue their certificates themselves", ServersGroup)
	}
	now, end := p.params.Now(), p.ca.cert.NotAfter
	if !now.Before(end) {
		return nil, fmt.Errorf("the cluster's certificate authority expired on %s", end.Format(time.DateOnly))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: csr.Subject,
		DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, EmailAddresses: csr.EmailAddresses, URIs: csr.URIs,
		NotBefore: now.Add(-backdate).UTC(), NotAfter: now.Add(lifetime).UTC(),
		KeyUsage: usage, ExtKeyUsage: extended, BasicConstraintsValid: true,
	}
	if lifetime >= short {
		tmpl.NotAfter = tmpl.NotAfter.Add(-backdate)
	}
	if tmpl.NotAfter.After(end) {
		tmpl.NotAfter = end
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, p.ca.cert, csr.PublicKey, p.ca.key)
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate for %q: %w", csr.Subject.CommonName, err)
	}
	return encodeCert(der), nil
}
