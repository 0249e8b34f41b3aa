package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/knarr-io/knarr/internal/store"
)

// ExternalConfig says where an etcd is that somebody else runs.
type ExternalConfig struct {
	Endpoints                 []string
	CAFile, CertFile, KeyFile string // all may be empty
	// Name is this server's among those that share the etcd.
	Name string
	Log  *slog.Logger
}

// External is an etcd that somebody else runs, and that several servers may share.
type External struct {
	cfg     ExternalConfig
	client  *clientv3.Client
	terms   terms
	contact *Contact
}

const (
	// sessionSeconds is how long etcd waits for a leader that it does not hear any more.
	sessionSeconds = 5
	externalDial   = 5 * time.Second
)

// ExternalMaxOps is how many operations etcd takes in one transaction unless it is told otherwise (--max-txn-ops). The fence's check is one more
// condition.
const ExternalMaxOps = 127

// OpenExternal returns a client for the etcd; WaitReady finds out whether it answers.
func OpenExternal(cfg ExternalConfig) (*External, error) {
	var conf *tls.Config
	if cfg.CAFile != "" || cfg.CertFile != "" || cfg.KeyFile != "" {
		info := transport.TLSInfo{TrustedCAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile}
		var err error
		if conf, err = info.ClientConfig(); err != nil {
			return nil, fmt.Errorf("the certificates for etcd: %w", err)
		}
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: conf, DialTimeout: externalDial, DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		PermitWithoutStream: true, Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("--etcd-endpoints: %w", err)
	}
	return &External{cfg: cfg, client: c, terms: newTerms(), contact: NewContact()}, nil
}

// Client returns the client.
func (e *External) Client() *clientv3.Client { return e.client }

// Contact tells whether etcd answers.
func (e *External) Contact() *Contact { return e.contact }

// Several is true: whether there are other servers is not known here.
func (e *External) Several() bool { return true }

// WaitReady returns when etcd has answered.
func (e *External) WaitReady(ctx context.Context) error {
	for told := false; ; told = true {
		within, cancel := context.WithTimeout(ctx, externalDial)
		_, err := e.client.Get(within, store.LeaderKey)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if !told {
			e.cfg.Log.Warn("waiting for etcd", "endpoints", e.cfg.Endpoints, "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// Run stands for leader, and keeps a session by which it notices that etcd does not answer, until ctx ends.
func (e *External) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := e.session(ctx); err != nil && ctx.Err() == nil {
			if e.contact.lost(errors.New("this server cannot reach its etcd: another one may answer")) {
				e.cfg.Log.Warn("etcd does not answer: requests are refused until it does", "err", err)
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// session is a time in touch with etcd.
func (e *External) session(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, externalDial)
	lease, err := e.client.Grant(within, sessionSeconds)
	cancel()
	if err != nil {
		return fmt.Errorf("a lease: %w", err)
	}
	s, err := concurrency.NewSession(e.client, concurrency.WithTTL(sessionSeconds), concurrency.WithLease(lease.ID))
	if err != nil {
		return fmt.Errorf("a session: %w", err)
	}
	defer func() { _ = s.Close() }() // if that fails its time will be over soon
	if e.contact.regained() {
		e.cfg.Log.Info("etcd answers again")
	}
	during, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	go func() {
		select {
		case <-s.Done():
			stop()
		case <-during.Done():
		}
	}()
	if err := concurrency.NewElection(s, store.ElectionPrefix).Campaign(during, e.cfg.Name); err != nil {
		return fmt.Errorf("standing for leader: %w", err)
	}
	e.terms.begin()
	defer e.terms.finish()
	e.cfg.Log.Info("leading the cluster's servers")
	<-during.Done()
	return errors.New("the session has ended")
}

// Leader is what store.Etcd.WithLeader asks for.
func (e *External) Leader() (changed <-chan struct{}, several bool) { return nil, true }

// Lead calls act whenever this server is the leader.
func (e *External) Lead(ctx context.Context, act func(ctx context.Context) error) error {
	return e.terms.each(ctx, act)
}

// Close ends the connections.
func (e *External) Close() { _ = e.client.Close() } // nothing is under way that could be lost
