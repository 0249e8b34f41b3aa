package workloads

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// served is a cluster in virtual time whose API Kubernetes' own controllers can use: over HTTP, in memory.
type served struct {
	*client.Local
	t        *testing.T
	registry *registry.Registry
	handler  http.Handler
}

type anyone struct{}

func (anyone) Authenticate(*http.Request) (user.Info, bool, error) {
	return &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}, true, nil
}

func newServed(t *testing.T) *served {
	c, reg := clienttest.NewRegistry(t)
	s := server.New(server.Config{
		Registry: reg, Authenticator: anyone{}, Authorizer: authz.Union{authz.Masters{}}, Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+knarr"},
		Log: slog.New(slog.DiscardHandler),
	})
	return &served{Local: c, t: t, registry: reg, handler: s}
}

// config is how clients of Kubernetes reach the cluster.
func (s *served) config() *rest.Config {
	return &rest.Config{Host: "http://knarr", Transport: inMemory{s.handler}, RateLimiter: flowcontrol.NewFakeAlwaysRateLimiter()}
}

// theirs runs a controller of Kubernetes until the returned function is called, or the test ends.
func (s *served) theirs(begin func(ctx context.Context, kube clientset.Interface, factory informers.SharedInformerFactory) (run func(context.Context, int), err error)) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.New(nil)))
	kube, err := clientset.NewForConfig(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(kube, 0)
	run, err := begin(ctx, kube, factory)
	if err != nil {
		s.t.Fatal(err)
	}
	factory.StartWithContext(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { run(ctx, 1) })
	return s.once(func() { cancel(); factory.Shutdown(); wg.Wait() })
}

// ours runs a controller of Knarr likewise.
func (s *served) ours(c controller.Controller) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := (&controller.Runner{Client: s.Local, Log: slog.New(slog.DiscardHandler)}).Run(ctx, c); err != nil {
			s.t.Error(err)
		}
	})
	return s.once(func() { cancel(); wg.Wait() })
}

func (s *served) once(f func()) func() {
	f = sync.OnceFunc(f)
	s.t.Cleanup(f)
	return f
}

// inMemory is the way to a handler without a network, so that it works in a bubble of virtual time.
type inMemory struct{ handler http.Handler }

func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { in.CloseWithError(context.Canceled) }) // as a broken connection
	a := &answering{header: http.Header{}, body: in, begun: make(chan struct{})}
	go func() {
		defer cancel()
		defer in.Close()
		defer a.WriteHeader(http.StatusOK) // where the handler writes nothing
		r := r.Clone(ctx)
		r.RequestURI = r.URL.RequestURI()
		if r.Body == nil {
			r.Body = http.NoBody
		}
		m.handler.ServeHTTP(a, r)
	}()
	<-a.begun
	return &http.Response{
		Status: http.StatusText(a.code), StatusCode: a.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: a.header.Clone(), ContentLength: -1, Request: r,
		Body: &streamed{out, cancel},
	}, nil
}

// streamed is the body of an answer; closing it tells the handler that nobody listens any longer.
type streamed struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (s *streamed) Close() error {
	s.cancel()
	return s.PipeReader.Close()
}

// answering is an answer under way.
type answering struct {
	header http.Header
	body   *io.PipeWriter
	code   int
	begun  chan struct{}
}

func (a *answering) Header() http.Header { return a.header }
func (a *answering) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
		close(a.begun)
	}
}
func (a *answering) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}
func (a *answering) Flush()                           { a.WriteHeader(http.StatusOK) }
func (a *answering) SetReadDeadline(time.Time) error  { return nil }
func (a *answering) SetWriteDeadline(time.Time) error { return nil }
