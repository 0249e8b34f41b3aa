package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/server/authn"
)

// Config is what a port serves, and to whom.
type Config struct {
	// Address is where it listens.
	Address netip.AddrPort
	// Node is the name of the node, whose rights are asked for.
	Node string
	// Answer has the answers, without asking who wants them.
	Answer http.Handler
	// Clients are the authorities of client certificates.
	Clients *x509.CertPool
	// Reviewer is the API server's opinion.
	Reviewer Reviewer
	Log      *slog.Logger
}

// Port is a node's port for tools.
type Port struct {
	cfg     Config
	certs   *authn.ClientCert
	reviews *reviews
	own     certificate
}

// New returns a Port; Run opens it.
func New(cfg Config) *Port {
	return &Port{
		cfg: cfg, certs: authn.NewClientCert(time.Now), reviews: newReviews(cfg.Reviewer, time.Now),
		own: certificate{node: cfg.Node, address: cfg.Address.Addr(), now: time.Now},
	}
}

// Timeouts of connections. An answer may take long: logs are followed.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	endTime    = time.Second
)

// Run listens until ctx ends. Its error names the address that could not be listened at.
func (p *Port) Run(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.Address.String())
	if err != nil {
		return fmt.Errorf("opening the kubelet port: %w", err)
	}
	srv := &http.Server{
		Handler: pki.VerifyClients(p.cfg.Clients, p), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime,
		ErrorLog:    slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			ClientAuth: tls.RequestClientCert, // verified by the handler: who shows a wrong one is told 401
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return p.own.current()
			},
		},
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // those who follow a log
		}
	})
	err = srv.ServeTLS(l, "", "")
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the kubelet port: %w", err)
}

// ServeHTTP answers a request of somebody who may ask. Refusals are worded as a kubelet words them.
func (p *Port) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, ok, err := authn.Union{p.certs, p.reviews}.Authenticate(r)
	if err != nil || !ok {
		if err != nil {
			p.cfg.Log.Debug("refusing a request at the kubelet port", "from", r.RemoteAddr, "err", err)
		}
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	verb, subs := right(r)
	var refused error
	for _, sub := range subs {
		allowed, err := p.reviews.allowed(r.Context(), question(who, p.cfg.Node, verb, sub))
		if allowed {
			p.cfg.Answer.ServeHTTP(w, r)
			return
		}
		refused = errors.Join(refused, err)
	}
	if refused != nil {
		p.cfg.Log.Warn("asking the API server who may use the kubelet port", "user", who.GetName(), "err", refused)
		http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.GetName(), verb, subs), http.StatusInternalServerError)
		return
	}
	http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.GetName(), verb, subs), http.StatusForbidden)
}
