package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crypto/rand"

	"k8s.io/client-go/tools/clientcmd"
)

func ensure(t *testing.T, dir string, p Params) *PKI {
	t.Helper()
	got, err := Ensure(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEnsureKeepsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	a := ensure(t, dir, Params{})
	b := ensure(t, dir, Params{})
	if !a.CA().Equal(b.CA()) || !a.Server().Leaf.Equal(b.Server().Leaf) || !a.Admin().Leaf.Equal(b.Admin().Leaf) {
		t.Error("the second Ensure replaced a certificate")
	}
	if !a.sa.Equal(b.sa) {
		t.Error("the second Ensure replaced the token key")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name(), ".key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	want := []string{"admin.crt", "admin.key", "apiserver.crt", "apiserver.key", "ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "front-proxy-client.crt", "front-proxy-client.key", "sa.key", "sa.pub"}
	if !slices.Equal(names, want) {
		t.Errorf("files: %v, want %v", names, want)
	}
}

func TestServerNames(t *testing.T) {
	dir := t.TempDir()
	p := ensure(t, dir, Params{NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}})
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "192.0.2.7", "10.96.0.1", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local"} {
		if err := p.Server().Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if p.Server().Leaf.VerifyHostname("api.example.com") == nil {
		t.Error("the certificate is for a name nobody asked for")
	}
	q := ensure(t, dir, Params{NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}, Names: []string{"api.example.com", "198.51.100.1"}})
	for _, name := range []string{"api.example.com", "198.51.100.1", "192.0.2.7"} {
		if err := q.Server().Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if !p.CA().Equal(q.CA()) || !p.Admin().Leaf.Equal(q.Admin().Leaf) {
		t.Error("a new server name replaced another certificate")
	}
}

func TestDamage(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   []string // parts of the error; nil: repaired
	}{
		{"authority's certificate is empty", truncate("ca.crt"), []string{"ca.crt is damaged"}},
		{"authority's key is empty", truncate("ca.key"), []string{"ca.key is damaged"}},
		{"authority's key is missing", remove("ca.key"), []string{"ca.key is missing", "ca.crt"}},
		{"authority's certificate is missing", remove("ca.crt"), nil},
		{"authority's key is another's", func(t *testing.T, dir string) {
			key, err := newKey()
			if err == nil {
				err = writeKey(filepath.Join(dir, "ca.key"), key)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, []string{"ca.crt", "ca.key", "do not belong together"}},
		{"authority is no authority", func(t *testing.T, dir string) {
			for _, ext := range []string{".crt", ".key"} {
				if err := os.Rename(filepath.Join(dir, "admin"+ext), filepath.Join(dir, "ca"+ext)); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"ca.crt is not the certificate of an authority"}},
		{"token key is cut", truncate("sa.key"), []string{"sa.key is damaged"}},
		{"server's certificate is cut", truncate("apiserver.crt"), []string{"apiserver.crt is damaged", "remove"}},
		{"server's certificate is missing", remove("apiserver.crt"), nil},
		{"server's key is missing", remove("apiserver.key"), nil},
		{"public token key is missing", remove("sa.pub"), nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			before := ensure(t, dir, Params{})
			tc.damage(t, dir)
			after, err := Ensure(dir, Params{})
			if tc.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := after.Admin().Leaf.Verify(x509.VerifyOptions{Roots: before.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
					t.Errorf("who trusted the cluster before does not any more: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func truncate(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Truncate(filepath.Join(dir, name), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRunRenewsAtTwoThirds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		renewed := 0
		p := ensure(t, dir, Params{Renewed: func(*PKI) error { renewed++; return nil }})
		config := p.ServerTLS()
		first, _ := config.GetCertificate(nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()

		time.Sleep(leafLifetime/3*2 - 24*time.Hour)
		synctest.Wait()
		if c, _ := config.GetCertificate(nil); !c.Leaf.Equal(first.Leaf) {
			t.Error("renewed too early")
		}
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		second, _ := config.GetCertificate(nil)
		if second.Leaf.Equal(first.Leaf) || renewed != 1 {
			t.Errorf("not renewed at two thirds of its life, Renewed called %d times", renewed)
		}
		if left := time.Until(second.Leaf.NotAfter); left < leafLifetime-48*time.Hour {
			t.Errorf("the new certificate lives %v only", left)
		}
		if again := ensure(t, dir, Params{}); !again.Server().Leaf.Equal(second.Leaf) {
			t.Error("the file holds another certificate than the server")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A certificate that its authority's end has cut short must not be issued again and again.
func TestRunNearTheAuthoritysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ensure(t, dir, Params{})
		time.Sleep(caLifetime - 60*24*time.Hour)
		p := ensure(t, dir, Params{})
		if !p.Server().Leaf.NotAfter.Equal(p.CA().NotAfter) {
			t.Fatalf("the certificate ends %v, the authority %v", p.Server().Leaf.NotAfter, p.CA().NotAfter)
		}
		time.Sleep(50 * 24 * time.Hour)
		serial := p.Server().Leaf.SerialNumber
		if err := p.Renew(); err != nil || p.Server().Leaf.SerialNumber.Cmp(serial) != 0 {
			t.Errorf("renewed although nothing is won (%v)", err)
		}
		if wait := p.untilDue(time.Hour); wait != time.Hour {
			t.Errorf("looks again after %v", wait)
		}
		time.Sleep(11 * 24 * time.Hour)
		if _, err := Ensure(dir, Params{}); err == nil || !strings.Contains(err.Error(), "ca.crt expired") {
			t.Errorf("error %v", err)
		}
	})
}

// A real TLS server, the kubeconfig that kubectl would read, and a node's certificate.
func TestKubeconfigOverTLS(t *testing.T) {
	p := ensure(t, t.TempDir(), Params{})
	srv := httptest.NewUnstartedServer(p.VerifyClients(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		s := r.TLS.PeerCertificates[0].Subject
		_, _ = w.Write([]byte(s.CommonName + " " + strings.Join(s.Organization, ",")))
	})))
	srv.TLS = p.ServerTLS()
	srv.StartTLS()
	defer srv.Close()
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())

	path := filepath.Join(t.TempDir(), "sub", "kubeconfig")
	if err := p.WriteAdminKubeconfig(path, "knarr", "https://localhost:"+port); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	node, key, err := p.IssueClient("system:node:n1", []string{"system:nodes"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	nodeConfig, err := p.Kubeconfig("knarr", "https://localhost:"+port, node, key)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for want, data := range map[string][]byte{"kubernetes-admin system:masters": admin, "system:node:n1 system:nodes": nodeConfig} {
		cfg, err := clientcmd.RESTConfigFromKubeConfig(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := get(t, cfg.Host, cfg.TLSClientConfig.CAData, cfg.TLSClientConfig.CertData, cfg.TLSClientConfig.KeyData); got != want {
			t.Errorf("the server saw %q, want %q", got, want)
		}
	}
}

func get(t *testing.T, url string, ca, cert, key []byte) string {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := make([]byte, 200)
	n, _ := resp.Body.Read(body)
	return string(body[:n])
}

func TestSignRequestTakesOnlyTheKey(t *testing.T) {
	p := ensure(t, t.TempDir(), Params{})
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root", Organization: []string{"system:masters"}}, DNSNames: []string{"kubernetes"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	out, err := p.SignRequest(csr, "system:node:n2", []string{"system:nodes"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(out)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "system:node:n2" || !slices.Equal(cert.Subject.Organization, []string{"system:nodes"}) || len(cert.DNSNames) != 0 {
		t.Errorf("issued for %v %v", cert.Subject, cert.DNSNames)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		t.Error("issued for another key")
	}
	der[len(der)-1] ^= 1
	if _, err := p.SignRequest(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), "x", nil, 0); err == nil {
		t.Error("signed a request with a wrong signature")
	}
}
