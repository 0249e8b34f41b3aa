package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"

	"k8s.io/utils/lru"
)

// VerifyClients hands requests to h with the chains of their client certificates, as far as these are the cluster's and valid
// now. The handshake of [PKI.ServerTLS] takes any certificate: one that has expired, or is of another cluster, must not keep a
// client out whose token would be good, nor keep it from an answer that says 401.
func (p *PKI) VerifyClients(h http.Handler) http.Handler { return VerifyClients(p.Pool(), h) }

// VerifyClients is [PKI.VerifyClients] for the client certificates of any authorities; its TLS configuration requests certificates
// without verifying them.
func VerifyClients(roots *x509.CertPool, h http.Handler) http.Handler {
	known := lru.New(4096) // *x509.Certificate, one per connection -> its chains
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			h.ServeHTTP(w, r)
			return
		}
		leaf := r.TLS.PeerCertificates[0]
		chains, ok := known.Get(leaf)
		if !ok {
			chains = verifyClient(roots, r.TLS)
			known.Add(leaf, chains)
		}
		state := *r.TLS
		state.VerifiedChains = chains.([][]*x509.Certificate)
		r.TLS = &state
		h.ServeHTTP(w, r)
	})
}

// verifyClient returns the chains from a client's certificate to one of roots, none where there is none.
func verifyClient(roots *x509.CertPool, state *tls.ConnectionState) [][]*x509.Certificate {
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	chains, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil // whoever sent it is as good as without
	}
	return chains
}
