package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"
)

// Renew looks at the certificates of the server, the administrator and the front proxy and issues those again that are missing, do not come
// from this authority, lack a name, or have lived two thirds of their life. Connections that are open stay open.
func (p *PKI) Renew() error {
	p.renewing.Lock()
	defer p.renewing.Unlock()
	server, err := p.ensureLeaf("apiserver", &p.ca, p.serverLeaf())
	if err != nil {
		return err
	}
	admin, err := p.ensureLeaf("admin", &p.ca, clientLeaf("kubernetes-admin", []string{"system:masters"}))
	if err != nil {
		return err
	}
	front, err := p.ensureLeaf("front-proxy-client", &p.proxy, clientLeaf(FrontProxyName, nil))
	if err != nil {
		return err
	}
	p.front.Store(front)
	if p.params.Server != "" {
		peer, err := p.ensureLeaf("peer", &p.ca, clientLeaf("knarr:server:"+p.params.Server, []string{ServersGroup}))
		if err != nil {
			return err
		}
		p.peer.Store(peer)
	}
	oldServer, oldAdmin := p.server.Swap(server), p.admin.Swap(admin)
	again := oldServer != nil && !oldServer.Leaf.Equal(server.Leaf) || oldAdmin != nil && !oldAdmin.Leaf.Equal(admin.Leaf)
	if again && p.params.Renewed != nil {
		return p.params.Renewed(p)
	}
	return nil
}

// Run renews certificates when they are due, until ctx is cancelled.
func (p *PKI) Run(ctx context.Context) error {
	// A timer that sleeps for months would also sleep through a suspended machine's lost time; a day is close enough to
	// two thirds of a year.
	const longest = 24 * time.Hour
	const retry = time.Minute
	wait := p.untilDue(longest)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if err := p.Renew(); err != nil {
			slog.Error("certificates were not renewed", "error", err)
			wait = retry
			continue
		}
		wait = p.untilDue(longest)
	}
}

// untilDue returns how long to wait before the next look, at least a second and at most longest.
func (p *PKI) untilDue(longest time.Duration) time.Duration {
	wait := longest
	for _, c := range []*tls.Certificate{p.server.Load(), p.admin.Load(), p.peer.Load()} {
		if c != nil && p.ca.renewable(c.Leaf) {
			wait = min(wait, due(c.Leaf).Sub(p.params.Now()))
		}
	}
	if c := p.front.Load(); p.proxy.renewable(c.Leaf) {
		wait = min(wait, due(c.Leaf).Sub(p.params.Now()))
	}
	return max(wait, time.Second)
}

// due returns when a certificate is to be renewed: at two thirds of its life.
func due(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

// renewable reports whether a new certificate would outlive c, which is not so where c was cut short by its authority's end.
func (a *authority) renewable(c *x509.Certificate) bool { return c.NotAfter.Before(a.cert.NotAfter) }

// ensureLeaf reads NAME.crt and NAME.key and has by issue them again if reissue says so.
func (p *PKI) ensureLeaf(name string, by *authority, want leaf) (*tls.Certificate, error) {
	base := p.path(name)
	pair, err := readPair(base)
	why := "it did not exist"
	switch {
	case err == nil:
		if why = by.reissue(pair.Leaf, want, p.params.Now()); why == "" {
			return pair, nil
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w (remove %s.crt and %s.key to have them made again)", err, base, base)
	}
	cert, key, err := by.issue(want, p.params.Now())
	if err != nil {
		return nil, err
	}
	if err := writePair(base, cert.Certificate[0], key); err != nil {
		return nil, err
	}
	slog.Info("issued a certificate", "file", base+".crt", "because", why, "until", cert.Leaf.NotAfter.Format(time.DateOnly))
	return cert, nil
}

// reissue says why a certificate that is there is not good enough, or "".
func (a *authority) reissue(c *x509.Certificate, want leaf, now time.Time) string {
	if c.CheckSignatureFrom(a.cert) != nil {
		return "another authority had signed it"
	}
	if !now.Before(due(c)) && a.renewable(c) {
		return "it was due"
	}
	if c.Subject.CommonName != want.subject.CommonName || !slices.Equal(c.Subject.Organization, want.subject.Organization) {
		return "it was for someone else"
	}
	for _, name := range want.dns {
		if !slices.Contains(c.DNSNames, name) {
			return "it lacked the name " + name
		}
	}
	for _, ip := range want.ips {
		if !slices.ContainsFunc(c.IPAddresses, ip.Equal) {
			return "it lacked the address " + ip.String()
		}
	}
	return ""
}

// serverLeaf is the serving certificate with every name by which the API server is reached: from the machine, from
// other machines, and from pods through Service default/kubernetes.
func (p *PKI) serverLeaf() leaf {
	dns := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + p.params.ClusterDomain}
	ips := []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}
	addIP := func(ip net.IP) {
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		if !slices.ContainsFunc(ips, ip.Equal) {
			ips = append(ips, ip)
		}
	}
	if host, err := os.Hostname(); err == nil && host != "" && !slices.Contains(dns, host) {
		dns = append(dns, host)
	}
	for _, a := range slices.Concat(p.params.ServiceIPs, p.params.NodeIPs) {
		addIP(a.AsSlice())
	}
	for _, name := range p.params.Names {
		if ip := net.ParseIP(name); ip != nil {
			addIP(ip)
		} else if name != "" && !slices.Contains(dns, name) {
			dns = append(dns, name)
		}
	}
	return leaf{
		subject:  pkix.Name{CommonName: "kube-apiserver"},
		dns:      dns,
		ips:      ips,
		usage:    []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		lifetime: leafLifetime,
	}
}
