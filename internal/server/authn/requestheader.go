package authn

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/lru"
)

// The headers in which a front proxy says for whom a request is: those that Kubernetes suggests, and that ConfigMap
// kube-system/extension-apiserver-authentication tells aggregated servers.
const (
	RemoteUser        = "X-Remote-User"
	RemoteUID         = "X-Remote-Uid"
	RemoteGroup       = "X-Remote-Group"
	RemoteExtraPrefix = "X-Remote-Extra-"
)

// RequestHeader authenticates requests that a front proxy passes on: whoever has a certificate of the front proxies' authority and one of
// the allowed names is believed about the user
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy).
type RequestHeader struct {
	roots   *x509.CertPool
	allowed []string
	now     func() time.Time
	known   *lru.Cache // *x509.Certificate, one per connection -> error, nil for a front proxy
}

// NewRequestHeader returns a RequestHeader. roots are the authorities of front proxies, allowed their common names. now is the clock,
// time.Now if nil.
func NewRequestHeader(roots *x509.CertPool, allowed []string, now func() time.Time) *RequestHeader {
	if now == nil {
		now = time.Now
	}
	return &RequestHeader{roots: roots, allowed: allowed, now: now, known: lru.New(1024)}
}

// Authenticate implements Authenticator.
func (h *RequestHeader) Authenticate(r *http.Request) (user.Info, bool, error) {
	name := r.Header.Get(RemoteUser)
	if name == "" || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	if err := h.verify(r.TLS.PeerCertificates); err != nil {
		return nil, false, err
	}
	who := &user.DefaultInfo{Name: name, UID: r.Header.Get(RemoteUID), Extra: map[string][]string{}}
	for _, g := range r.Header.Values(RemoteGroup) {
		if g != "" {
			who.Groups = append(who.Groups, g)
		}
	}
	for header, values := range r.Header {
		if key, ok := cutPrefixFold(header, RemoteExtraPrefix); ok {
			key = strings.ToLower(key)
			if plain, err := url.PathUnescape(key); err == nil {
				key = plain
			}
			who.Extra[key] = append(who.Extra[key], values...)
		}
	}
	return authenticated(who), true, nil
}

// verify returns an error unless certificates are those of a front proxy.
func (h *RequestHeader) verify(chain []*x509.Certificate) error {
	leaf := chain[0]
	if h.now().After(leaf.NotAfter) { // the handshake may have been long ago
		return fmt.Errorf("the certificate of the front proxy has expired")
	}
	if known, ok := h.known.Get(leaf); ok {
		err, _ := known.(error)
		return err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: h.roots, Intermediates: between, CurrentTime: h.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err == nil && !slices.Contains(h.allowed, leaf.Subject.CommonName) {
		err = fmt.Errorf("x509: subject with cn=%s is not in the allowed list", leaf.Subject.CommonName)
	}
	h.known.Add(leaf, err)
	return err
}

// ClearRemote removes what a front proxy said: whoever gets the request after it has been authenticated must not come to believe it again.
func ClearRemote(header http.Header) {
	for name := range header {
		if len(name) > len("X-Remote-") && strings.EqualFold(name[:len("X-Remote-")], "X-Remote-") && isRemote(name) {
			delete(header, name)
		}
	}
}

func isRemote(name string) bool {
	_, extra := cutPrefixFold(name, RemoteExtraPrefix)
	return extra || strings.EqualFold(name, RemoteUser) || strings.EqualFold(name, RemoteUID) || strings.EqualFold(name, RemoteGroup)
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}
