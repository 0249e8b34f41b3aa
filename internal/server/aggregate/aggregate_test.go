package aggregate

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

var fishV1 = schema.GroupVersion{Group: "fish.example.com", Version: "v1"}

// sea is an Aggregator over memory, and the HTTP server before it.
type sea struct {
	t    *testing.T
	a    *Aggregator
	c    *client.Local
	keys *pki.PKI
	url  string
}

func start(t *testing.T) *sea {
	t.Helper()
	keys, err := pki.Ensure(t.TempDir(), pki.Params{})
	if err != nil {
		t.Fatal(err)
	}
	s := clienttest.RunStore(t, store.NewMem())
	c, _ := clienttest.NewRegistry(t, func(cfg *registry.Config) { cfg.Store = s })
	a := New(Config{Store: s, FrontProxy: keys.FrontProxy, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	ready := make(chan struct{})
	wg.Go(func() {
		if err := a.Run(ctx, func() { close(ready) }); err != nil {
			t.Error(err)
		}
	})
	<-ready
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call.Call{W: &call.Recorder{ResponseWriter: w}, R: r, Query: r.URL.Query(), Log: slog.New(slog.DiscardHandler)}
		c.Target = call.Parse(r.Method, r.URL.Path, c.Query)
		c.Target.User = &user.DefaultInfo{Name: "jane", UID: "7", Groups: []string{"devs"}, Extra: map[string][]string{"example.com/Scope": {"a b"}}}
		h := a.Handler(fishV1)
		if h == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if err := h(c); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(func() { srv.Close(); cancel(); wg.Wait() })
	return &sea{t, a, c, keys, srv.URL}
}

// backend runs an API server that believes this one, behind Service sea/fish, and returns its CA.
func (s *sea) backend(h http.HandlerFunc) []byte {
	s.t.Helper()
	srv := httptest.NewUnstartedServer(h)
	served, err := pki.Ensure(s.t.TempDir(), pki.Params{Names: []string{"fish.sea.svc"}})
	if err != nil {
		s.t.Fatal(err)
	}
	srv.TLS = served.ServerTLS()
	srv.TLS.ClientAuth, srv.TLS.ClientCAs = tls.RequireAndVerifyClientCert, s.keys.FrontProxyPool()
	srv.EnableHTTP2 = true
	srv.StartTLS()
	s.t.Cleanup(srv.Close)
	s.service(srv.Listener.Addr().String())
	return served.CAPEM()
}

// service makes Service sea/fish lead to an address.
func (s *sea) service(address string) {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	clienttest.Create(s.t, s.c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "sea"}})
	clienttest.Create(s.t, s.c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "sea", Name: "fish"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost", Ports: []corev1.ServicePort{{Port: int32(n)}}}})
}

// register makes the APIService, and waits until the Aggregator knows it.
func (s *sea) register(ca []byte, available bool) {
	s.t.Helper()
	svc, err := client.Get[*corev1.Service](s.t.Context(), s.c, api.Key{Namespace: "sea", Name: "fish"})
	if err != nil {
		s.t.Fatal(err)
	}
	made := clienttest.Create(s.t, s.c, &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.fish.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
		Group: fishV1.Group, Version: fishV1.Version, GroupPriorityMinimum: 2000, VersionPriority: 10, CABundle: ca,
		Service: &apiregistrationv1.ServiceReference{Namespace: "sea", Name: "fish", Port: &svc.Spec.Ports[0].Port},
	}})
	s.say(made.Name, available)
	s.eventually("the backend is there", func() bool {
		b := s.a.all()
		return len(b) == 1 && b[0].available == available
	})
}

// say writes whether the APIService is available, as the controller would.
func (s *sea) say(name string, available bool) {
	s.t.Helper()
	status := apiregistrationv1.ConditionFalse
	if available {
		status = apiregistrationv1.ConditionTrue
	}
	if _, err := client.Mutate(s.t.Context(), s.c, api.Key{Name: name}, "status", func(o *apiregistrationv1.APIService) bool {
		o.Status.Conditions = []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: status, Reason: "Test"}}
		return true
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sea) eventually(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not so after 20s: %s; seen %+v", what, s.a.Seen())
		}
	}
}

func (s *sea) do(method, path, body string, header ...string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

const fishes = "/apis/fish.example.com/v1/namespaces/sea/fishes"

// echo answers with what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, "%s %s %s as %s %s %v %v, cert %s, authorization %q, impersonation %q, sent %s", r.Proto, r.Method, r.URL.String(), r.Header.Get("X-Remote-User"),
		r.Header.Get("X-Remote-Uid"), r.Header["X-Remote-Group"], r.Header["X-Remote-Extra-Example.com%2fscope"], r.TLS.PeerCertificates[0].Subject.CommonName,
		r.Header.Get("Authorization"), r.Header.Get("Impersonate-User"), body)
}

func TestRequestsArePassedOn(t *testing.T) {
	s := start(t)
	if code, _ := s.do("GET", fishes, ""); code != http.StatusNotFound {
		t.Errorf("before it is registered: %d", code)
	}
	s.register(s.backend(echo), true)
	code, got := s.do("POST", fishes+"?fieldManager=me", "cod", "X-Remote-User", "root", "X-Remote-Group", "system:masters", "Impersonate-User", "root")
	want := `HTTP/2.0 POST ` + fishes + `?fieldManager=me as jane 7 [devs] [a b], cert front-proxy-client, authorization "", impersonation "", sent cod`
	if code != http.StatusAccepted || got != want {
		t.Errorf("%d %s\nwant %s", code, got, want)
	}
	if err := s.c.Delete(t.Context(), api.APIServices, api.Key{Name: "v1.fish.example.com"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("nobody serves it", func() bool { return s.a.Handler(fishV1) == nil && len(s.a.Seen().Discovery) == 0 })
}

// What is written at once arrives at once, as a watch needs it, and connections can be upgraded.
func TestStreamsArePassedOn(t *testing.T) {
	s := start(t)
	more := make(chan struct{})
	s.register(s.backend(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
			_ = rw.Flush()
			line, _ := rw.ReadString('\n')
			fmt.Fprint(rw, "heard "+line)
			_ = rw.Flush()
			return
		}
		fmt.Fprintln(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-more
		fmt.Fprintln(w, "second")
	}), true)
	resp, err := http.Get(s.url + fishes + "?watch=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Scan()
	close(more)
	if first := lines.Text(); first != "first" || !lines.Scan() || lines.Text() != "second" {
		t.Errorf("a stream: %q, then %q", first, lines.Text())
	}
	u, _ := url.Parse(s.url)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s/nemo/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n", fishes)
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("an upgrade: %v %v", answer, err)
	}
	fmt.Fprintln(conn, "hello")
	if line, err := r.ReadString('\n'); err != nil || line != "heard hello\n" {
		t.Errorf("through it: %q %v", line, err)
	}
}

func TestBackendsThatDoNotAnswer(t *testing.T) {
	s := start(t)
	ca := s.backend(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	s.register(ca, false)
	expect := func(when string, want int, text string) {
		t.Helper()
		if code, got := s.do("GET", fishes, ""); code != want || !strings.HasPrefix(got, text) {
			t.Errorf("%s: %d %s, want %d %s", when, code, got, want, text)
		}
	}
	expect("while it is not available", 503, "service unavailable\n")
	s.say("v1.fish.example.com", true)
	s.eventually("it is available", func() bool { return s.a.all()[0].available })
	expect("that breaks off", 503, "error trying to reach service: ")
	change := func(f func(*apiregistrationv1.APIService)) {
		t.Helper()
		before := s.a.all()[0]
		if _, err := client.Mutate(t.Context(), s.c, api.Key{Name: "v1.fish.example.com"}, "", func(o *apiregistrationv1.APIService) bool { f(o); return true }); err != nil {
			t.Fatal(err)
		}
		s.eventually("the change is known", func() bool { return s.a.all()[0] != before })
	}
	change(func(o *apiregistrationv1.APIService) { o.Spec.CABundle = s.keys.CAPEM() })
	expect("with another authority", 503, "error trying to reach service: tls: failed to verify certificate: x509: ")
	change(func(o *apiregistrationv1.APIService) { o.Spec.CABundle = []byte("none") })
	expect("with a bundle that is none", 500, "unable to load root certificates")
	change(func(o *apiregistrationv1.APIService) { o.Spec.CABundle, o.Spec.Service.Name = nil, "bird" })
	expect("without its service", 503, "service unavailable\n")
}

func TestCheck(t *testing.T) {
	s := start(t)
	var code atomic.Int32
	var asked atomic.Value // a check asks several times at once
	code.Store(http.StatusOK)
	ca := s.backend(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.Path + " " + r.Header.Get("X-Remote-User") + " " + r.Header.Get("X-Remote-Group"))
		w.WriteHeader(int(code.Load()))
	})
	s.register(ca, true)
	service, err := client.Get[*apiregistrationv1.APIService](t.Context(), s.c, api.Key{Name: "v1.fish.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.a.Check(t.Context(), service); err != nil {
		t.Error(err)
	}
	code.Store(http.StatusForbidden)
	if err := s.a.Check(t.Context(), service); err == nil || !strings.Contains(err.Error(), "failing or missing response from https://fish.sea.svc:") || !strings.Contains(err.Error(), "bad status from") || !strings.HasSuffix(err.Error(), ": 403") {
		t.Error(err)
	}
	if asked.Load() != "/apis/fish.example.com/v1 system:kube-aggregator system:masters" {
		t.Errorf("asked %s", asked.Load())
	}
	service.Spec.CABundle = s.keys.CAPEM()
	if err := s.a.Check(t.Context(), service); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Error(err)
	}
}

// discovery of a server that knows both forms, or only the older one.
func TestWhatIsServedIsDiscovered(t *testing.T) {
	all := `{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","items":[{"metadata":{"name":"fish.example.com"},"versions":[
		{"version":"v1","resources":[{"resource":"fishes","scope":"Namespaced","verbs":["get"],"subresources":[{"subresource":"status","verbs":["get"]}]}]}]}]}`
	list := `{"kind":"APIResourceList","groupVersion":"fish.example.com/v1","resources":[{"name":"fishes/status","kind":"Fish","verbs":["get"]},{"name":"fishes","kind":"Fish","namespaced":true,"verbs":["get"]}]}`
	for _, newer := range []bool{true, false} {
		s := start(t)
		s.register(s.backend(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/apis" && newer && r.Header.Get("If-None-Match") == `"1"`:
				w.WriteHeader(http.StatusNotModified)
			case r.URL.Path == "/apis" && newer:
				w.Header().Set("Content-Type", acceptAll)
				w.Header().Set("ETag", `"1"`)
				fmt.Fprint(w, all)
			case r.URL.Path == "/apis/fish.example.com/v1":
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, list)
			case r.URL.Path == "/openapi/v3":
				fmt.Fprint(w, `{"paths":{"apis/fish.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/fish.example.com/v1?hash=1"}}}`)
			case r.URL.Path == "/openapi/v2":
				fmt.Fprint(w, `{"paths":{"/apis/fish.example.com/v1/fishes":{}}}`)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}), true)
		s.eventually("it is discovered", func() bool {
			d := s.a.Seen().Discovery
			return len(d) == 1 && d[0].Served.Freshness == apidiscoveryv2.DiscoveryFreshnessCurrent && len(d[0].Served.Resources) == 1 &&
				len(d[0].Served.Resources[0].Subresources) == 1 && d[0].Served.Resources[0].Subresources[0].ResponseKind != nil && d[0].GroupPriority == 2000
		})
		s.eventually("it is documented", func() bool {
			d := s.a.Seen().OpenAPI
			return len(d) == 1 && d[0].V2 != nil && d[0].Location == "/openapi/v3/apis/fish.example.com/v1?hash=1"
		})
		before := s.a.Seen()
		if !s.a.discoverAll(t.Context()) || s.a.Seen() != before {
			t.Error("documents are made anew although nothing has changed")
		}
		if _, err := s.a.all()[0].serves(t.Context(), s.a.all()[0].discovered.Load()); err != nil {
			t.Error(err)
		}
		s.say("v1.fish.example.com", false)
		s.eventually("nothing is known any longer", func() bool {
			seen := s.a.Seen()
			return seen.Discovery[0].Served.Freshness == apidiscoveryv2.DiscoveryFreshnessStale && len(seen.Discovery[0].Served.Resources) == 0 && len(seen.OpenAPI) == 0
		})
	}
}

// A bundle of many certificates is one that trusts each.
func TestBundles(t *testing.T) {
	s := start(t)
	ca := s.backend(echo)
	other, err := pki.Ensure(t.TempDir(), pki.Params{})
	if err != nil {
		t.Fatal(err)
	}
	both := append(other.CAPEM(), ca...)
	if block, _ := pem.Decode(both); block == nil {
		t.Fatal("no PEM")
	} else if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	s.register(both, true)
	if code, got := s.do("GET", fishes, ""); code != http.StatusAccepted {
		t.Errorf("%d %s", code, got)
	}
}

func BenchmarkNothingAggregated(b *testing.B) {
	a := New(Config{})
	for b.Loop() {
		if a.Handler(fishV1) != nil {
			b.Fatal("who?")
		}
	}
}
