package machine

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/cluster/join"
	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// linkOthers keeps the agent of this server's machine connected with the cluster's other servers, as agents elsewhere are: so they reach
// its containers, and whoever leads knows within seconds when this machine has gone.
func (s *server) linkOthers(ctx context.Context, m *machine, keys *pki.PKI) error {
	servers, err := join.NewServers("", s.log)
	if err != nil {
		return err
	}
	self := "https://" + s.reached().String()
	cert := &nodeCertificate{keys: keys, node: s.NodeName}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return servers.Follow(ctx, m.client) })
	g.Go(func() error {
		return agentlink.RunAgent(ctx, agentlink.AgentConfig{
			Servers: func() ([]string, <-chan struct{}) {
				all, changed := servers.All()
				return slices.DeleteFunc(all, func(u string) bool { return u == self }), changed
			},
			TLS: cert.tls, Agent: m.loaded, Log: s.log, Changed: func(string, error) { m.hasten() },
		})
	})
	return g.Wait()
}

// nodeCertificate is the certificate of this server's machine as a node, which it signs itself and keeps in memory only.
type nodeCertificate struct {
	keys *pki.PKI
	node string

	mu   sync.Mutex
	cert *tls.Certificate
}

// tls returns the configuration for a connection with another server.
func (n *nodeCertificate) tls() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(n.keys.CA())
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return n.current(time.Now()) },
	}
}

// current returns a certificate that is good for a while.
func (n *nodeCertificate) current(now time.Time) (*tls.Certificate, error) {
	const lifetime, ahead = 30 * 24 * time.Hour, 24 * time.Hour
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cert != nil && now.Before(n.cert.Leaf.NotAfter.Add(-ahead)) {
		return n.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	certPEM, err := n.keys.SignRequest(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), "system:node:"+n.node, []string{"system:nodes"}, lifetime)
	if err != nil {
		return nil, fmt.Errorf("this machine's certificate as a node: %w", err)
	}
	block, _ := pem.Decode(certPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	n.cert = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	return n.cert, nil
}
