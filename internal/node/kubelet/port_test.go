package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/knarr-io/knarr/internal/pki"
)

// server is an API server that knows tokens, and rights as "user verb nodes/subresource".
type server struct {
	tokens map[string]string // token -> user
	rights []string
	down   error
	asked  int
}

func (s *server) ReviewToken(_ context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	s.asked++
	who, ok := s.tokens[r.Spec.Token]
	r.Status = authenticationv1.TokenReviewStatus{Authenticated: ok, User: authenticationv1.UserInfo{Username: who, Groups: []string{"watchers"}}}
	return r, s.down
}

func (s *server) ReviewAccess(_ context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	s.asked++
	a := r.Spec.ResourceAttributes
	r.Status.Allowed = a.Name == "node-1" && slices.Contains(s.rights, strings.Join([]string{r.Spec.User, a.Verb, a.Resource + "/" + a.Subresource}, " "))
	return r, s.down
}

func newKeys(t *testing.T) *pki.PKI {
	t.Helper()
	keys, err := pki.Ensure(t.TempDir(), pki.Params{Server: "node-1", NodeIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func clientCertificate(t *testing.T, keys *pki.PKI, user string) tls.Certificate {
	t.Helper()
	cert, key, err := keys.IssueClient(user, []string{"watchers"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func newPort(api *server, clients *x509.CertPool) *Port {
	return New(Config{
		Address: netip.MustParseAddrPort("127.0.0.1:0"), Node: "node-1", Clients: clients, Reviewer: api, Log: slog.New(slog.DiscardHandler),
		Answer: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "figures of "+r.URL.Path) }),
	})
}

func TestWhoIsAnswered(t *testing.T) {
	keys, others := newKeys(t), newKeys(t)
	api := &server{tokens: map[string]string{"good": "prometheus", "poor": "nobody"}, rights: []string{"prometheus get nodes/metrics", "operator get nodes/proxy"}}
	srv := httptest.NewUnstartedServer(pki.VerifyClients(keys.Pool(), newPort(api, keys.Pool())))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	defer srv.Close()
	operator, stranger := clientCertificate(t, keys, "operator"), clientCertificate(t, others, "operator")
	for _, tt := range []struct {
		name, path, token string
		cert              *tls.Certificate
		code              int
		body              string
	}{
		{name: "without credentials", path: "/metrics", code: 401, body: "Unauthorized"},
		{name: "with a token that nobody knows", path: "/metrics", token: "bad", code: 401, body: "Unauthorized"},
		{name: "with a right", path: "/metrics/cadvisor", token: "good", code: 200, body: "figures of /metrics/cadvisor"},
		{name: "with another right", path: "/stats/summary", token: "good", code: 403, body: "Forbidden (user=prometheus, verb=get, resource=nodes, subresource(s)=[stats])"},
		{name: "without any right", path: "/pods", token: "poor", code: 403, body: "Forbidden (user=nobody, verb=get, resource=nodes, subresource(s)=[pods proxy])"},
		{name: "with a certificate and the wider right", path: "/pods", cert: &operator, code: 200, body: "figures of /pods"},
		{name: "with a certificate, for what the wider right does not cover", path: "/metrics", cert: &operator, code: 403, body: "Forbidden (user=operator, verb=get, resource=nodes, subresource(s)=[metrics])"},
		{name: "with a certificate of another cluster", path: "/pods", cert: &stranger, code: 401, body: "Unauthorized"},
		{name: "with a certificate of another cluster and a token", path: "/metrics", cert: &stranger, token: "good", code: 200, body: "figures of /metrics"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := &tls.Config{InsecureSkipVerify: true}
			if tt.cert != nil {
				config.Certificates = []tls.Certificate{*tt.cert}
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.token != "" {
				r.Header.Set("Authorization", "Bearer "+tt.token)
			}
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
			defer client.CloseIdleConnections()
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.code || strings.TrimSpace(string(b)) != tt.body {
				t.Errorf("answered %d %q (%v), want %d %q", resp.StatusCode, b, err, tt.code, tt.body)
			}
		})
	}
}

func TestRightOfAPath(t *testing.T) {
	for path, want := range map[string]string{
		"/stats/summary": "stats", "/metrics": "metrics", "/metrics/probes": "metrics", "/logs/": "log", "/pods": "pods proxy", "/runningpods/": "pods proxy",
		"/healthz": "healthz proxy", "/configz": "configz proxy", "/containerLogs/a/b/c": "proxy", "/usage/node": "proxy", "/": "proxy", "/metricsandmore": "proxy",
		"/../metrics": "proxy", "//metrics": "proxy",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path
		if verb, subs := right(r); verb != "get" || strings.Join(subs, " ") != want {
			t.Errorf("GET %s asks for %s %v, want get [%s]", path, verb, subs, want)
		}
	}
	for method, want := range map[string]string{http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete", http.MethodHead: "head"} {
		if verb, _ := right(httptest.NewRequest(method, "/pods", nil)); verb != want {
			t.Errorf("%s is the verb %s, want %s", method, verb, want)
		}
	}
}

func TestAnswersAreForgotten(t *testing.T) {
	api := &server{tokens: map[string]string{"good": "prometheus"}, rights: []string{"prometheus get nodes/metrics"}}
	now := time.Unix(0, 0)
	reviews := newReviews(api, func() time.Time { return now })
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Authorization", "bearer good")
	ask := func() (known, allowed bool) {
		t.Helper()
		who, ok, err := reviews.Authenticate(r)
		if !ok {
			if err == nil {
				t.Error("a token that is no longer good is refused without a reason")
			}
			return false, false
		}
		allowed, err = reviews.allowed(t.Context(), question(who, "node-1", "get", "metrics"))
		if err != nil {
			t.Fatal(err)
		}
		return true, allowed
	}
	for range 3 {
		if known, allowed := ask(); !known || !allowed {
			t.Fatalf("known %v, allowed %v at first", known, allowed)
		}
	}
	if api.asked != 2 {
		t.Errorf("the API server was asked %d times for three requests, want 2", api.asked)
	}
	api.rights = nil
	now = now.Add(allowedTime)
	if known, allowed := ask(); !known || allowed {
		t.Errorf("a minute after its right was taken away: known %v, allowed %v", known, allowed)
	}
	api.rights = []string{"prometheus get nodes/metrics"}
	now = now.Add(refusedTime)
	if _, allowed := ask(); !allowed {
		t.Error("half a minute after it was given its right it is still refused")
	}
	delete(api.tokens, "good")
	now = now.Add(tokenTime)
	if known, _ := ask(); known {
		t.Error("the token of an account that is gone is believed after two minutes")
	}
	api.down, now = errors.New("no server answers"), now.Add(tokenTime)
	if known, _ := ask(); known {
		t.Error("a token is believed while no server answers")
	}
}

func TestRunServesUntilItEnds(t *testing.T) {
	keys := newKeys(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := newPort(&server{rights: []string{"operator get nodes/metrics"}}, keys.Pool())
	port.cfg.Address = free.Addr().(*net.TCPAddr).AddrPort()
	free.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- port.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{clientCertificate(t, keys, "operator")}}}}
	defer client.CloseIdleConnections()
	get := func() (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+port.cfg.Address.String()+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		return client.Do(r)
	}
	resp, err := get()
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); resp, err = get() {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	leaf := resp.TLS.PeerCertificates[0]
	if err := leaf.VerifyHostname("127.0.0.1"); resp.StatusCode != 200 || err != nil || leaf.Subject.CommonName != "system:node:node-1" {
		t.Errorf("answered %s by %s (%v)", resp.Status, leaf.Subject, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestItsCertificateIsMadeAnewInTime(t *testing.T) {
	now := time.Now()
	c := &certificate{node: "node-1", address: netip.MustParseAddr("192.0.2.1"), now: func() time.Time { return now }}
	serial := func() string {
		t.Helper()
		pair, err := c.current()
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.String()
	}
	first := serial()
	now = now.Add(certificateTime / 2)
	if serial() != first {
		t.Error("another certificate after half of its life")
	}
	now = now.Add(certificateTime / 4)
	if serial() == first {
		t.Error("the same certificate after three quarters of its life")
	}
}
