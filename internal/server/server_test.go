package server_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// fixture is an API server over a memory store.
type fixture struct {
	t        testing.TB
	url      string
	client   *client.Local
	registry *registry.Registry
	server   *server.Server
	http     *http.Client
}

// byHeader authenticates whoever X-User names; the tests' own client is an administrator.
type byHeader struct{}

func (byHeader) Authenticate(r *http.Request) (user.Info, bool, error) {
	switch name := r.Header.Get("X-User"); name {
	case "nobody":
		return nil, false, nil
	case "":
		return &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}, true, nil
	default:
		return &user.DefaultInfo{Name: name, Groups: []string{user.AllAuthenticated}}, true, nil
	}
}

func start(t testing.TB, change ...func(*server.Config)) *fixture {
	t.Helper()
	c, reg := clienttest.NewRegistry(t)
	cfg := server.Config{
		Registry: reg, Authenticator: byHeader{}, Authorizer: authz.Union{authz.Masters{}},
		Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+knarr"},
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	s := server.New(cfg)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return &fixture{t: t, url: h.URL, client: c, registry: reg, server: s, http: h.Client()}
}

// overTLS serves f over TLS and HTTP/2 from now on, as a cluster does.
func (f *fixture) overTLS() *fixture {
	h := httptest.NewUnstartedServer(f.server)
	h.EnableHTTP2 = true
	h.StartTLS()
	f.t.Cleanup(h.Close)
	f.url, f.http = h.URL, h.Client()
	return f
}

func (f *fixture) config() *rest.Config {
	return &rest.Config{Host: f.url, QPS: -1, TLSClientConfig: rest.TLSClientConfig{Insecure: strings.HasPrefix(f.url, "https:")}}
}

// answer is a response that has been read.
type answer struct {
	Code   int
	Header http.Header
	Body   string
}

// status decodes the answer as a Status and returns its reason and message.
func (a answer) status(t testing.TB) (reason, message string) {
	t.Helper()
	var st struct{ Kind, Reason, Message string }
	if err := json.Unmarshal([]byte(a.Body), &st); err != nil || st.Kind != "Status" {
		t.Fatalf("not a Status: %d %q", a.Code, a.Body)
	}
	return st.Reason, st.Message
}

// do sends a request; headers are name, value pairs.
func (f *fixture) do(method, path, body string, headers ...string) answer {
	f.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := f.http.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// must sends a request that has to succeed.
func (f *fixture) must(method, path, body string, headers ...string) answer {
	f.t.Helper()
	a := f.do(method, path, body, headers...)
	if a.Code >= 300 {
		f.t.Fatalf("%s %s: %d %s", method, path, a.Code, a.Body)
	}
	return a
}

// containsString is strings.Contains, for tests that import nothing else of it.
func containsString(s, sub string) bool { return strings.Contains(s, sub) }

func contains(t testing.TB, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("got %q\nwant something with %q", got, want)
	}
}
