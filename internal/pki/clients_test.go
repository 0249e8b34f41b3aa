package pki

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestClientsWithoutAGoodCertificate: a certificate that has expired, or that another authority issued, costs a client no more than
// the name in it. Its token decides.
func TestClientsWithoutAGoodCertificate(t *testing.T) {
	p, other := ensure(t, t.TempDir(), Params{}), ensure(t, t.TempDir(), Params{})
	srv := httptest.NewUnstartedServer(p.VerifyClients(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(r.TLS.VerifiedChains) > 0:
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		case r.Header.Get("Authorization") == "Bearer good":
			_, _ = io.WriteString(w, "by token")
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	})))
	srv.TLS = p.ServerTLS()
	srv.StartTLS()
	defer srv.Close()
	issue := func(by *PKI, life time.Duration) *tls.Certificate {
		cert, key, err := by.IssueClient("jane", nil, life)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return &pair
	}
	for _, tc := range []struct {
		name  string
		cert  *tls.Certificate
		token string
		code  int
		body  string
	}{
		{"good", issue(p, time.Hour), "", 200, "jane"},
		{"expired", issue(p, time.Nanosecond), "", 401, ""},
		{"expired beside a token", issue(p, time.Nanosecond), "good", 200, "by token"},
		{"of another cluster", issue(other, time.Hour), "", 401, ""},
		{"of another cluster beside a token", issue(other, time.Hour), "good", 200, "by token"},
		{"none", nil, "good", 200, "by token"},
		{"a server's", p.Server(), "", 401, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.Pool(), ServerName: "localhost",
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if tc.cert == nil {
						return &tls.Certificate{}, nil
					}
					return tc.cert, nil
				}}}
			defer transport.CloseIdleConnections()
			for range 2 { // the second request is of a certificate that is known
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				if tc.token != "" {
					req.Header.Set("Authorization", "Bearer "+tc.token)
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != tc.code || string(b) != tc.body {
					t.Errorf("%v: %d %q, want %d %q", err, resp.StatusCode, b, tc.code, tc.body)
				}
			}
		})
	}
}
