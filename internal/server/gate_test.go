package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// TestTimeoutOfARequest: what is no duration is refused, as Kubernetes does.
func TestTimeoutOfARequest(t *testing.T) {
	f := start(t)
	for query, code := range map[string]int{"invalid": 400, "5": 400, "10s": 200, "0": 200, "0s": 200, "-1s": 200, "999h": 200} {
		if a := f.do("GET", configMaps+"?timeout="+query, ""); a.Code != code {
			t.Errorf("timeout=%s: %d, want %d: %s", query, a.Code, code, a.Body)
		}
	}
	if a := f.do("GET", configMaps+"?timeout=invalid", ""); !strings.Contains(a.Body, "invalid timeout specified in the request URL") {
		t.Error(a.Body)
	}
}

// halfSent opens a connection on which a request has begun whose body does not come, and returns what is answered to it.
func halfSent(t *testing.T, f *fixture, who, path string) (answered func() int) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-User: %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"spec\"", path, who); err != nil {
		t.Fatal(err)
	}
	return func() int {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
}

// basic lets everybody review their own access, as system:basic-user does, and jane write ConfigMaps.
type basic struct{}

func (basic) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.Resource == "selfsubjectaccessreviews" || a.User.GetName() == "jane" && a.Resource == "configmaps" {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

// TestHalfSentBodies: bodies that do not arrive keep nobody else from writing, whatever their senders may do.
func TestHalfSentBodies(t *testing.T) {
	f := start(t, func(c *server.Config) { c.Authorizer = authz.Union{authz.Masters{}, basic{}} })
	for range 220 {
		halfSent(t, f, "eve", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
	}
	// Who may not send a body is refused before it has come.
	if code := halfSent(t, f, "eve", configMaps)(); code != http.StatusForbidden {
		t.Errorf("a body without a right to send it: %d", code)
	}
	contains(t, f.must("GET", "/metrics", "").Body, `apiserver_current_inflight_requests{request_kind="mutating"} 0`)
	for i := range 20 {
		began := time.Now()
		if a := f.do("POST", configMaps, fmt.Sprintf(`{"metadata":{"name":"m%d"}}`, i), "X-User", "jane"); a.Code != 201 || time.Since(began) > 5*time.Second {
			t.Fatalf("write %d of another user: %d %s after %s", i, a.Code, a.Body, time.Since(began))
		}
	}
}

// TestConnectionsOutliveRefusals: whoever is refused before the server has read the body goes on with the same connection.
func TestConnectionsOutliveRefusals(t *testing.T) {
	f := start(t, func(c *server.Config) { c.Authorizer = authz.Union{authz.Masters{}, basic{}} })
	conns := map[string]bool{}
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conns[i.Conn.LocalAddr().String()] = true }}
	for i := range 50 {
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "PATCH", f.url+configMaps+"/x", strings.NewReader(`{"data":{"k":"v"}}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-User", "eve")
		req.Header.Set("Content-Type", "application/merge-patch+json")
		resp, err := f.http.Do(req)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Fatalf("request %d: %d", i, resp.StatusCode)
		}
	}
	if len(conns) != 1 {
		t.Errorf("%d connections for requests one after another", len(conns))
	}
}

// TestStrangersKeepNoConnection: over HTTP/2 the connection of somebody without credentials ends with the answer; that of a user stays.
func TestStrangersKeepNoConnection(t *testing.T) {
	f := start(t).overTLS()
	ask := func(who string) (addr string) {
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { addr = i.Conn.LocalAddr().String() }}
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", f.url+configMaps, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-User", who)
		resp, err := f.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 || (resp.StatusCode == http.StatusUnauthorized) != (who == "nobody") {
			t.Fatalf("user %q: %s over %s", who, resp.Status, resp.Proto)
		}
		return addr
	}
	users := ask("")
	for range 3 {
		if ask("") != users {
			t.Fatal("a user's connection ended")
		}
	}
	first := ask("nobody")
	for deadline := time.Now().Add(10 * time.Second); ask("nobody") == first; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a stranger's connection goes on")
		}
	}
}

// TestBodyThatTrickles: a body in pieces is read as one.
func TestBodyThatTrickles(t *testing.T) {
	f := start(t)
	r, w := io.Pipe()
	go func() {
		defer w.Close()
		for _, piece := range []string{`{"metadata":`, `{"name":"slow"}`, `,"data":{"k":"`, strings.Repeat("v", 100_000), `"}}`} {
			_, _ = io.WriteString(w, piece)
		}
	}()
	resp, err := f.http.Post(f.url+configMaps, "application/json", r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 201 {
		b, _ := io.ReadAll(resp.Body)
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}
