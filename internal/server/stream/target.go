package stream

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// Target is where the runtime serves one stream.
type Target struct {
	URL *url.URL
	// Dial makes the connection to URL's server, or hands over one that has been made; nil means [Dial] without a certificate.
	Dial func(ctx context.Context) (net.Conn, error)
}

func (t Target) dial(ctx context.Context) (net.Conn, error) {
	if t.Dial == nil {
		return Dial(ctx, t.URL, nil)
	}
	return t.Dial(ctx)
}

// Dial connects to a runtime's streaming server, from the machine that the runtime is on. Where its certificate is known it is the one
// and only that is accepted, over https. Where it is nil, a server is trusted by the authorities that this machine trusts, and
// one on the loopback address may speak http.
func Dial(ctx context.Context, u *url.URL, certificate *x509.Certificate) (net.Conn, error) {
	verify, err := trust(u, certificate)
	if err != nil {
		return nil, err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), u.Scheme)
	}
	d := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	if verify == nil {
		return d.DialContext(ctx, "tcp", host)
	}
	return (&tls.Dialer{NetDialer: d, Config: verify}).DialContext(ctx, "tcp", host)
}

// trust says how to verify u's server: nil for one that speaks http and may.
func trust(u *url.URL, certificate *x509.Certificate) (*tls.Config, error) {
	verify := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}} // HTTP/2 knows no upgrades
	switch {
	case certificate == nil && u.Scheme == "https":
		return verify, nil
	case certificate == nil && u.Scheme == "http" && loopback(u.Hostname()):
		return nil, nil
	case certificate == nil:
		return nil, fmt.Errorf("the runtime serves streams at %s://%s: want https, or http on a loopback address", u.Scheme, u.Host)
	case u.Scheme != "https":
		return nil, fmt.Errorf("the runtime gave the URL of a stream with scheme %q, want https", u.Scheme)
	}
	// As its own only root it is verified in the usual way, for its addresses and its time.
	verify.RootCAs = x509.NewCertPool()
	verify.RootCAs.AddCert(certificate)
	verify.VerifyConnection = func(s tls.ConnectionState) error {
		if !s.PeerCertificates[0].Equal(certificate) {
			return errors.New("the runtime's streaming server has another certificate than the node knows")
		}
		return nil
	}
	return verify, nil
}

// loopback says whether host is an address that does not leave this machine. A name can lead anywhere.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// spdyTransport lets client-go speak SPDY over a connection to a target, once.
type spdyTransport struct {
	target Target
	conn   net.Conn
	rest   *bufio.Reader // what the server has sent behind its answer
}

var _ httpstream.UpgradeRoundTripper = (*spdyTransport)(nil)

func (t *spdyTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	header := req.Header.Clone()
	header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	var resp *http.Response
	var err error
	t.conn, t.rest, resp, err = upgrade(req.Context(), t.target, header)
	return resp, err
}

func (t *spdyTransport) NewConnection(*http.Response) (httpstream.Connection, error) {
	return spdy.NewClientConnection(&readAheadConn{Conn: t.conn, r: t.rest})
}

// readAheadConn is a connection of which some bytes have been read into r.
type readAheadConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *readAheadConn) Read(b []byte) (int, error) { return c.r.Read(b) }
