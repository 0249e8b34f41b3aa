// Package pki holds the keys and certificates of one cluster, as files in one directory under the names that kubeadm
// gives them:
//
//	ca.crt, ca.key                the cluster's certificate authority (ECDSA P-256, 10 years)
//	apiserver.crt, apiserver.key  the API server's serving certificate, for every name it is reached by
//	admin.crt, admin.key          the administrator's client certificate (system:masters)
//	peer.crt, peer.key            by which the other servers of the cluster know this one (knarr:servers)
//	sa.key, sa.pub                the key that signs service account tokens
//	front-proxy-ca.crt, .key      the authority of those who may speak for users in headers; trusted for nothing else
//	front-proxy-client.crt, .key  by which aggregated API servers know this one
//
// What flows through it: [Ensure] makes what is missing and keeps what is there; [PKI.ServerTLS] gives the server its TLS
// configuration; [PKI.IssueClient] and [PKI.SignRequest] give nodes and components their certificates; [PKI.Run] renews
// certificates when two thirds of their life have passed, without a restart. What must stay true: a file that is there and
// cannot be used is an error that names it, never silently replaced - the authority and the token key cannot be made
// again without breaking every client; a file is replaced whole or not at all; keys are readable by their owner only.
// Tests: TestDamage, TestEnsureKeepsWhatIsThere, TestRunRenewsAtTwoThirds.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Lifetimes. Leaves are renewed at two thirds of theirs.
const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
	// backdate makes certificates valid a little early, for clients whose clocks are behind.
	backdate = 5 * time.Minute
)

// Params say for whom the server certificate is.
type Params struct {
	// Names are DNS names and IP addresses by which clients reach the server, besides the ones it always has: localhost,
	// its loopback addresses, kubernetes.default.svc and so on.
	Names []string
	// NodeIPs are the machine's own addresses.
	NodeIPs []netip.Addr
	// ServiceIPs are the addresses of Service default/kubernetes; 10.96.0.1 if empty.
	ServiceIPs []netip.Addr
	// ClusterDomain is the DNS domain of Services; cluster.local if empty.
	ClusterDomain string
	// Server is this server's name among those of the cluster; empty makes no peer certificate.
	Server string
	// Renewed, if set, is called after Run has renewed a certificate, for files that hold copies (the kubeconfig).
	Renewed func(*PKI) error
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// PKI is the cluster's keys and certificates. Its methods are safe for concurrent use.
type PKI struct {
	dir    string
	params Params
	ca     authority
	proxy  authority // of front proxies
	sa     *ecdsa.PrivateKey

	renewing sync.Mutex // held while leaves are looked at and replaced
	server   atomic.Pointer[tls.Certificate]
	admin    atomic.Pointer[tls.Certificate]
	peer     atomic.Pointer[tls.Certificate] // nil without Params.Server
	front    atomic.Pointer[tls.Certificate]
}

// Ensure reads the keys and certificates in dir, and makes those that are missing, are about to expire or, in the
// server's case, lack one of the names it needs.
func Ensure(dir string, params Params) (*PKI, error) {
	if params.Now == nil {
		params.Now = time.Now
	}
	if params.ClusterDomain == "" {
		params.ClusterDomain = "cluster.local"
	}
	if len(params.ServiceIPs) == 0 {
		params.ServiceIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, 1})}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory for certificates: %w", err)
	}
	p := &PKI{dir: dir, params: params}
	var err error
	if p.ca, err = ensureAuthority(p.path("ca"), "knarr", params.Now()); err != nil {
		return nil, err
	}
	if p.proxy, err = ensureAuthority(p.path("front-proxy-ca"), "front-proxy-ca", params.Now()); err != nil {
		return nil, err
	}
	if p.sa, err = p.ensureTokenKey(); err != nil {
		return nil, err
	}
	if err := p.Renew(); err != nil {
		return nil, err
	}
	return p, nil
}

// path returns the path of a file in the directory, without its extension.
func (p *PKI) path(name string) string { return filepath.Join(p.dir, name) }

// CA returns the certificate of the cluster's authority.
func (p *PKI) CA() *x509.Certificate { return p.ca.cert }

// CAPEM returns the same in PEM, as kubeconfigs and ConfigMap kube-root-ca.crt hold it.
func (p *PKI) CAPEM() []byte { return slices.Clone(p.ca.pem) }

// TokenKey returns the key that signs service account tokens.
func (p *PKI) TokenKey() crypto.Signer { return p.sa }

// Admin returns the administrator's client certificate, a member of system:masters.
func (p *PKI) Admin() *tls.Certificate { return p.admin.Load() }

// Server returns the serving certificate that is in use now.
func (p *PKI) Server() *tls.Certificate { return p.server.Load() }

// Pool returns a pool that trusts the cluster's authority only.
func (p *PKI) Pool() *x509.CertPool { return p.ca.pool() }

// ServerTLS returns the API server's TLS configuration: its certificate, always the newest. Clients may show a certificate,
// which [PKI.VerifyClients] verifies, or bear a token. Front proxies have certificates of an authority of their own.
func (p *PKI) ServerTLS() *tls.Config {
	clients := p.Pool()
	clients.AddCert(p.proxy.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert, // for VerifyClients
		ClientCAs:  clients,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			// The authority's certificate goes along: a machine that joins knows it by its fingerprint only.
			with := *p.server.Load()
			with.Certificate = append(slices.Clip(with.Certificate), p.ca.cert.Raw)
			return &with, nil
		},
	}
}

// ClientTLS returns a client's TLS configuration for the API server, with the administrator's certificate, always the
// newest.
func (p *PKI) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    p.Pool(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return p.admin.Load(), nil
		},
	}
}

// ensureTokenKey reads or makes sa.key, and its public half sa.pub for whoever else verifies tokens.
func (p *PKI) ensureTokenKey() (*ecdsa.PrivateKey, error) {
	key, err := readKey(p.path("sa.key"))
	if errors.Is(err, os.ErrNotExist) {
		if key, err = newKey(); err != nil {
			return nil, err
		}
		err = writeKey(p.path("sa.key"), key)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.path("sa.pub")); errors.Is(err, os.ErrNotExist) {
		if err := writePublicKey(p.path("sa.pub"), &key.PublicKey); err != nil {
			return nil, err
		}
	}
	return key, nil
}
