package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/knarr-io/knarr/internal/pki"
)

// Identity is what makes this machine a node of a cluster: a certificate, its key, and the authority and addresses of the servers.
// It is an http.RoundTripper, with the newest certificate, to whichever server answers.
type Identity struct {
	// Server is the URL to name in requests.
	Server  string
	servers *Servers
	dir     string
	log     *slog.Logger
	roots   *x509.CertPool

	cert      atomic.Pointer[tls.Certificate]
	transport atomic.Pointer[http.Transport]
}

// files are the contents of an identity's directory.
type files struct {
	servers       []string
	ca, cert, key []byte
}

// Names of the files. Certificate and key are in one file, so that a crash cannot leave two that do not belong together.
const (
	serverFile  = "server"  // those that were given, one a line
	serversFile = "servers" // those of the cluster's list
	caFile      = "ca.crt"
	pairFile    = "client.pem"
)

func save(dir string, f files) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the directory of this machine's certificate: %w", err)
	}
	if err := pki.WriteFile(filepath.Join(dir, serverFile), lines(f.servers), 0o644); err != nil {
		return err
	}
	if err := pki.WriteFile(filepath.Join(dir, caFile), f.ca, 0o644); err != nil {
		return err
	}
	return savePair(dir, f.cert, f.key)
}

func savePair(dir string, cert, key []byte) error {
	return pki.WriteFile(filepath.Join(dir, pairFile), bytes.Join([][]byte{cert, key}, []byte("\n")), 0o600)
}

// Load reads the identity in dir. Its error is os.ErrNotExist where there is none. servers, if any, are used in place of those
// given when the machine joined.
func Load(dir string, log *slog.Logger, servers ...string) (*Identity, error) {
	pair, err := os.ReadFile(filepath.Join(dir, pairFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("this machine has not joined a cluster: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		b, err := os.ReadFile(filepath.Join(dir, serverFile))
		if err != nil {
			return nil, err
		}
		if servers = strings.Fields(string(b)); len(servers) == 0 {
			return nil, fmt.Errorf("%s names no server: give --server", filepath.Join(dir, serverFile))
		}
	}
	ca, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		return nil, err
	}
	cert, err := parsePair(pair)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", filepath.Join(dir, pairFile), err)
	}
	i := &Identity{Server: servers[0], dir: dir, log: log, roots: x509.NewCertPool()}
	if i.servers, err = NewServers(filepath.Join(dir, serversFile), log, servers...); err != nil {
		return nil, err
	}
	if !i.roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", filepath.Join(dir, caFile))
	}
	i.use(cert)
	return i, nil
}

func parsePair(pem []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	}
	return &pair, err
}

// use makes cert the one that new connections show.
func (i *Identity) use(cert *tls.Certificate) {
	i.cert.Store(cert)
	if old := i.transport.Swap(newTransport(i.TLS())); old != nil {
		old.CloseIdleConnections() // those in use end with their watches
	}
}

// NodeName is the node that this machine is.
func (i *Identity) NodeName() string {
	return strings.TrimPrefix(i.cert.Load().Leaf.Subject.CommonName, "system:node:")
}

// Expired reports whether the certificate's time is over, so that the machine must join again.
func (i *Identity) Expired(now time.Time) bool { return now.After(i.cert.Load().Leaf.NotAfter) }

// TLS returns a configuration for connections to the server.
func (i *Identity) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: i.roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.cert.Load(), nil },
	}
}

// Authorities are the cluster's certificate authorities.
func (i *Identity) Authorities() *x509.CertPool { return i.roots }

// Servers are the servers that this machine knows.
func (i *Identity) Servers() *Servers { return i.servers }

// Leave forgets the certificate: the machine needs a token to come back.
func (i *Identity) Leave() error {
	for _, name := range []string{pairFile, serversFile} {
		if err := os.Remove(filepath.Join(i.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing this machine's certificate: %w", err)
		}
	}
	return nil
}

// Run renews the certificate when two thirds of its life have passed, until ctx ends.
func (i *Identity) Run(ctx context.Context) error {
	// A day at most, so that a machine that slept, or whose clock was set, notices.
	const longest, retry = 24 * time.Hour, time.Minute
	for {
		leaf := i.cert.Load().Leaf
		wait := min(time.Until(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore)/3*2)), longest)
		if wait <= 0 {
			if err := i.renew(ctx); err == nil {
				continue
			} else if ctx.Err() == nil {
				i.log.Error("this machine's certificate was not renewed, trying again", "until", leaf.NotAfter, "err", err)
			}
			wait = retry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// renewTime bounds one attempt.
const renewTime = 2 * time.Minute

func (i *Identity) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	key, keyPEM, err := newKey()
	if err != nil {
		return err
	}
	cert, err := request(ctx, i.Server, i, i.NodeName(), key, i.log)
	if err != nil {
		return err
	}
	pair, err := parsePair(append(append(cert, '\n'), keyPEM...))
	if err != nil {
		return err
	}
	if err := savePair(i.dir, cert, keyPEM); err != nil {
		return err
	}
	i.use(pair)
	i.log.Info("renewed this machine's certificate", "until", pair.Leaf.NotAfter.Format(time.DateOnly))
	return nil
}
