package pki

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
)

// FrontProxyName is the common name of the certificate by which aggregated API servers know this one. A certificate of the same authority
// and for the same name lets its bearer speak for users in headers
// (https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/).
const FrontProxyName = "front-proxy-client"

// FrontProxy returns the client certificate of this server as a front proxy, always the newest.
func (p *PKI) FrontProxy() *tls.Certificate { return p.front.Load() }

// FrontProxyPool returns a pool that trusts the authority of front proxies only.
func (p *PKI) FrontProxyPool() *x509.CertPool { return p.proxy.pool() }

// FrontProxyCAPEM returns the certificate of the authority of front proxies.
func (p *PKI) FrontProxyCAPEM() []byte { return slices.Clone(p.proxy.pem) }
