package stream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestDialRefuses(t *testing.T) {
	known := &x509.Certificate{}
	for _, test := range []struct {
		url         string
		certificate *x509.Certificate
		want        string
	}{
		{"https://192.0.2.1:1/exec/t", known, ""},
		{"http://127.0.0.1:1/exec/t", known, `scheme "http", want https`},
		{"https://node.example:1/exec/t", nil, ""},
		{"http://127.0.0.1:1/exec/t", nil, ""},
		{"http://127.1.2.3:1/exec/t", nil, ""},
		{"http://[::1]:1/exec/t", nil, ""},
		{"http://[::ffff:127.0.0.1]:1/exec/t", nil, ""},
		{"http://192.0.2.1:1/exec/t", nil, "at http://192.0.2.1:1: want https, or http on a loopback address"},
		{"http://0.0.0.0:1/exec/t", nil, "want https"},
		{"http://localhost:1/exec/t", nil, "want https"},
		{"http://127.0.0.1.example:1/exec/t", nil, "want https"},
		{"ftp://127.0.0.1/exec/t", nil, "want https"},
		{"/exec/t", nil, "want https"},
	} {
		u, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		verify, err := trust(u, test.certificate)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: error %v, want %q", test.url, err, test.want)
		}
		if err == nil && (verify == nil) != (u.Scheme == "http") {
			t.Errorf("%s: TLS %v", test.url, verify != nil)
		}
		if test.want != "" { // and nothing is dialled
			if _, err := Dial(t.Context(), u, test.certificate); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: dialling gave %v, want %q", test.url, err, test.want)
			}
		}
	}
}

// signer makes certificates.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign makes a certificate for 127.0.0.1, signed by itself where by is nil.
func sign(t *testing.T, by *signer, change func(*x509.Certificate)) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	if by == nil {
		by = &signer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}

// TestDialTrusts: of all servers at the address only the one with the certificate gets a connection.
func TestDialTrusts(t *testing.T) {
	known := sign(t, nil, nil)
	authority := sign(t, nil, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	expired := sign(t, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	elsewhere := sign(t, nil, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} })
	for _, test := range []struct {
		name        string
		server      *signer
		chain       *signer
		certificate *signer
		want        string
	}{
		{"the one", known, nil, known, ""},
		{"another", sign(t, nil, nil), nil, known, "unknown authority"},
		{"one that it signed", sign(t, known, nil), known, known, "unknown authority"},
		{"one that it signed as an authority", sign(t, authority, nil), authority, authority, "another certificate than the node knows"},
		{"the one, expired", expired, nil, expired, "expired"},
		{"the one, for another address", elsewhere, nil, elsewhere, "valid for 192.0.2.1"},
		{"none is known", known, nil, nil, "unknown authority"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pair := tls.Certificate{Certificate: [][]byte{test.server.cert.Raw}, PrivateKey: test.server.key}
			if test.chain != nil {
				pair.Certificate = append(pair.Certificate, test.chain.cert.Raw)
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, "hello") // fails where the client refuses
				conn.Close()
			}()
			var certificate *x509.Certificate
			if test.certificate != nil {
				certificate = test.certificate.cert
			}
			conn, err := Dial(t.Context(), &url.URL{Scheme: "https", Host: l.Addr().String(), Path: "/exec/t"}, certificate)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
			} else if err != nil {
				t.Error(err)
			} else if b, err := io.ReadAll(conn); err != nil || string(b) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
			if conn != nil {
				conn.Close()
			}
			<-served
		})
	}
}
