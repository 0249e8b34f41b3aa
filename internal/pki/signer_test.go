package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"strings"
	"testing"
	"time"
)

func TestSignAsRequested(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	p := ensure(t, t.TempDir(), Params{Now: func() time.Time { return now }})
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	request := func(orgs ...string) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "system:node:a", Organization: orgs}, DNSNames: []string{"a.example"}, IPAddresses: []net.IP{{192, 0, 2, 1}},
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	for lifetime, end := range map[time.Duration]time.Time{
		time.Hour:                  now.Add(time.Hour),
		24 * time.Hour:             now.Add(24*time.Hour - backdate),
		100 * 365 * time.Hour * 24: p.CA().NotAfter,
	} {
		out, err := p.SignAsRequested(request("system:nodes"), x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, lifetime)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(out)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !cert.NotBefore.Equal(now.Add(-backdate)) || !cert.NotAfter.Equal(end) {
			t.Errorf("asked for %v: from %v to %v, want to %v", lifetime, cert.NotBefore, cert.NotAfter, end)
		}
		if cert.Subject.CommonName != "system:node:a" || cert.Subject.Organization[0] != "system:nodes" || cert.DNSNames[0] != "a.example" ||
			!cert.IPAddresses[0].Equal(net.IP{192, 0, 2, 1}) || cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("issued %+v", cert)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: p.Pool(), CurrentTime: now, DNSName: "a.example"}); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.SignAsRequested(request("x", ServersGroup), 0, nil, time.Hour); err == nil || !strings.Contains(err.Error(), ServersGroup) {
		t.Errorf("whoever may approve requests could become a server of the cluster: %v", err)
	}
	if _, err := p.SignAsRequested([]byte("x"), 0, nil, time.Hour); err == nil {
		t.Error("signed nonsense")
	}
	now = p.CA().NotAfter
	if _, err := p.SignAsRequested(request(), 0, nil, time.Hour); err == nil {
		t.Error("signed with an authority that has expired")
	}
}
