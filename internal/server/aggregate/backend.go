package aggregate

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-io/knarr/internal/api/registration"
	"github.com/knarr-io/knarr/internal/server/hook"
	"github.com/knarr-io/knarr/internal/store"
)

// aggregatorUser is who asks backends what they serve and whether they are well.
var aggregatorUser user.Info = &user.DefaultInfo{Name: "system:kube-aggregator", Groups: []string{user.SystemPrivilegedGroup}}

// backend is the server of one group-version.
type backend struct {
	name      string // of the APIService
	gv        schema.GroupVersion
	spec      apiregistrationv1.APIServiceSpec
	available bool
	at        url.URL
	broken    error // why no connection can be made
	// plain knows HTTP/2; upgrades need connections of HTTP/1.1.
	plain, upgrades *http.Transport

	discovered atomic.Pointer[discovered]
	documented atomic.Pointer[documented]
}

// newBackend returns the backend of an APIService that names a Service.
func newBackend(cfg Config, s *apiregistrationv1.APIService) *backend {
	b := &backend{name: s.Name, gv: schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}, spec: s.Spec}
	if c := registration.Available(s); c != nil {
		b.available = c.Status == apiregistrationv1.ConditionTrue
	}
	host := s.Spec.Service.Name + "." + s.Spec.Service.Namespace + ".svc"
	b.at = url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(portOf(s))))}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: s.Spec.InsecureSkipTLSVerify}
	if ca := bytes.TrimSpace(s.Spec.CABundle); len(ca) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			b.broken = errors.New("unable to load root certificates: there are none in caBundle")
		}
	}
	if cfg.FrontProxy != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cfg.FrontProxy(), nil }
	}
	b.plain, b.upgrades = newTransport(cfg.Store, s, conf, true), newTransport(cfg.Store, s, conf.Clone(), false)
	return b
}

func portOf(s *apiregistrationv1.APIService) int32 {
	if p := s.Spec.Service.Port; p != nil {
		return *p
	}
	return 443
}

// newTransport returns a transport whose connections go to an endpoint of the Service that is ready when they are made.
func newTransport(from *store.Store, s *apiregistrationv1.APIService, conf *tls.Config, http2 bool) *http.Transport {
	target := hook.Target{Namespace: s.Spec.Service.Namespace, Service: s.Spec.Service.Name, Port: portOf(s)}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		TLSClientConfig: conf, ForceAttemptHTTP2: http2, DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 16,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			address, err := hook.Resolve(from, target)
			if err != nil {
				return nil, &unresolvedError{err}
			}
			return dialer.DialContext(ctx, network, address)
		},
	}
}

// unresolvedError says that a Service has no endpoint.
type unresolvedError struct{ err error }

func (e *unresolvedError) Error() string { return e.err.Error() }

// same reports whether an APIService says what b was made from.
func (b *backend) same(s *apiregistrationv1.APIService) bool {
	if b == nil {
		return false
	}
	c := registration.Available(s)
	return b.available == (c != nil && c.Status == apiregistrationv1.ConditionTrue) && reflect.DeepEqual(b.spec, s.Spec)
}

// inherit takes over what the backend before is known to serve, until it is asked again.
func (b *backend) inherit(old *backend) {
	b.discovered.Store(old.discovered.Load())
	b.documented.Store(old.documented.Load())
}

// close closes the connections that nobody uses; those of requests under way end with them.
func (b *backend) close() {
	b.plain.CloseIdleConnections()
	b.upgrades.CloseIdleConnections()
}

// answer is what a backend said to a question of this server's own.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

const mostOfAnAnswer = 64 << 20

// ask asks the backend something as who, and returns the answer, whatever its code.
func (b *backend) ask(ctx context.Context, who user.Info, method, path string, header http.Header) (*answer, error) {
	if b.broken != nil {
		return nil, b.broken
	}
	u := b.at
	u.Path, u.RawQuery, _ = strings.Cut(path, "?")
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if header != nil {
		r.Header = header
	}
	r.Header.Set("User-Agent", "knarr")
	transport.SetAuthProxyHeaders(r, who.GetName(), who.GetUID(), who.GetGroups(), who.GetExtra())
	resp, err := b.plain.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostOfAnAnswer+1))
	if err == nil && len(body) > mostOfAnAnswer {
		err = fmt.Errorf("the answer is larger than %d bytes", mostOfAnAnswer)
	}
	if err != nil {
		return nil, err
	}
	return &answer{resp.StatusCode, resp.Header, body}, nil
}

// path returns where the backend serves its group-version.
func (b *backend) path() string {
	if b.gv.Group == "" {
		return "/api/" + b.gv.Version
	}
	return "/apis/" + b.gv.Group + "/" + b.gv.Version
}

func compareVersions(x, y schema.GroupVersion) int {
	return cmp.Or(cmp.Compare(x.Group, y.Group), apiversion.CompareKubeAwareVersionStrings(y.Version, x.Version))
}
