package join

import (
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pair is an identity that knows two servers, of which the first is used, and answers as the test says.
type pair struct {
	id     *Identity
	a, b   *httptest.Server
	asked  [2]atomic.Int64
	answer atomic.Pointer[http.HandlerFunc] // of a
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{}
	fine := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	p.answer.Store(&fine)
	p.a = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked[0].Add(1)
		(*p.answer.Load())(w, r)
	}))
	p.b = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked[1].Add(1)
		fine(w, r)
	}))
	t.Cleanup(p.a.Close)
	t.Cleanup(p.b.Close)
	servers, err := NewServers("", slog.New(slog.DiscardHandler), p.a.URL, p.b.URL)
	if err != nil {
		t.Fatal(err)
	}
	servers.current = p.a.URL
	p.id = &Identity{Server: p.a.URL, servers: servers, roots: x509.NewCertPool()}
	p.id.roots.AddCert(p.a.Certificate())
	p.id.transport.Store(newTransport(p.a.Client().Transport.(*http.Transport).TLSClientConfig))
	t.Cleanup(p.id.transport.Load().CloseIdleConnections)
	return p
}

// ask sends a request and returns the code and the body, or the error.
func (p *pair) ask(t *testing.T, method, body string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.a.URL+"/api", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := p.id.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestServerThatIsCutOff(t *testing.T) {
	p := newPair(t)
	if code, body, err := p.ask(t, http.MethodPost, "hello"); code != 200 || body != "hello" || err != nil || p.asked[1].Load() > 0 {
		t.Fatalf("a server that is well: %d %q %v", code, body, err)
	}
	busy := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	p.answer.Store(&busy)
	if code, _, err := p.ask(t, http.MethodPost, "a write"); code != http.StatusServiceUnavailable || err != nil || p.asked[1].Load() > 0 {
		t.Errorf("a write that the server may have begun was sent twice: %d %v", code, err)
	}
	if code, body, err := p.ask(t, http.MethodPost, "again"); code != 200 || body != "again" || err != nil || p.asked[1].Load() != 1 {
		t.Errorf("the next write: %d %q %v", code, body, err)
	}
	p.id.servers.current, p.id.servers.failed = p.a.URL, map[string]time.Time{}
	if code, _, err := p.ask(t, http.MethodGet, ""); code != 200 || err != nil || p.asked[1].Load() != 2 {
		t.Errorf("a read: %d %v", code, err)
	}
}

func TestServerThatIsAway(t *testing.T) {
	p := newPair(t)
	p.a.Close()
	if code, body, err := p.ask(t, http.MethodPost, "a write"); code != 200 || body != "a write" || err != nil {
		t.Errorf("a write that never left was not sent to the other server: %d %q %v", code, body, err)
	}
	p.b.Close()
	if _, _, err := p.ask(t, http.MethodGet, ""); err == nil {
		t.Error("an answer, with no server there")
	}
}

func TestAnswerThatBreaksOff(t *testing.T) {
	p := newPair(t)
	breaks := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "event")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	p.answer.Store(&breaks)
	if _, body, err := p.ask(t, http.MethodGet, ""); err == nil || body != "event" {
		t.Fatalf("the watch: %q %v", body, err)
	}
	if code, _, err := p.ask(t, http.MethodPost, "x"); code != 200 || err != nil || p.asked[1].Load() != 1 {
		t.Errorf("the request after it: %d %v", code, err)
	}
}

func TestChoose(t *testing.T) {
	now := time.Unix(1000, 0)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	for _, tc := range []struct {
		name   string
		failed map[string]time.Time
		want   []string
	}{
		{"all are well", nil, []string{"a", "b", "c"}},
		{"one failed", map[string]time.Time{"b": ago(1)}, []string{"a", "c"}},
		{"one failed long ago", map[string]time.Time{"b": ago(60)}, []string{"a", "b", "c"}},
		{"all failed", map[string]time.Time{"a": ago(1), "b": ago(3), "c": ago(2)}, []string{"b"}},
	} {
		var got []string
		for i := range 9 {
			got = append(got, choose([]string{"a", "b", "c"}, tc.failed, now, func(n int) int { return i % n }))
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	if got := choose(nil, nil, now, nil); got != "" {
		t.Errorf("of none: %q", got)
	}
}

func TestServersOfTheCluster(t *testing.T) {
	https, other, port, metrics, no := "https", "metrics", int32(6443), int32(9090), false
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Ports:      []discoveryv1.EndpointPort{{Name: &other, Port: &metrics}, {Name: &https, Port: &port}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.2"}}, {Addresses: []string{"10.0.0.1"}}, {Addresses: []string{"10.0.0.3"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
		},
	}
	twice := slice.DeepCopy()
	got := serversOf(map[string]*discoveryv1.EndpointSlice{"a": slice, "b": twice})
	if want := []string{"https://10.0.0.1:6443", "https://10.0.0.2:6443"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	file := filepath.Join(t.TempDir(), "servers")
	log := slog.New(slog.DiscardHandler)
	s, err := NewServers(file, log, "https://given:6443", "https://10.0.0.1:6443")
	if err != nil {
		t.Fatal(err)
	}
	_, changed := s.All()
	s.set(got)
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the change")
	}
	s.set(nil)
	again, err := NewServers(file, log, "https://given:6443")
	if err != nil {
		t.Fatal(err)
	}
	all, _ := s.All()
	kept, _ := again.All()
	if want := []string{"https://given:6443", "https://10.0.0.1:6443", "https://10.0.0.2:6443"}; !slices.Equal(all, want) || !slices.Equal(kept, want) {
		t.Errorf("%v, and after a restart %v, want %v", all, kept, want)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "https://10.0.0.1:6443\nhttps://10.0.0.2:6443\n" {
		t.Errorf("the file: %q %v", b, err)
	}
}
