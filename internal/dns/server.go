package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/client"
)

// Config describes a DNS server.
type Config struct {
	Listen []netip.AddrPort // UDP and TCP
	Zone   string           // cluster domain, "cluster.local" if empty
	// Reverse are the networks for whose addresses the cluster alone knows names: service and cluster CIDR.
	Reverse []netip.Prefix
	// Upstreams are the servers that names outside of the cluster are asked at, ADDR or ADDR:PORT. If empty, they are those of
	// ResolvConf (/etc/resolv.conf if that is empty), read again when it changes.
	Upstreams  []string
	ResolvConf string
	Client     client.Client
	// Metrics gets CoreDNS' series; nil means nobody.
	Metrics prometheus.Registerer
	Log     *slog.Logger // nil means slog.Default()
}

// Server answers DNS queries. Make one with New and call Run once.
type Server struct {
	cfg     Config
	zone    *Zone
	forward *forwarder
	ready   chan struct{}
	synced  atomic.Bool
	metrics *metrics
}

// New checks cfg and returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Zone == "" {
		cfg.Zone = "cluster.local"
	}
	origin := strings.ToLower(dns.Fqdn(cfg.Zone))
	if _, ok := dns.IsDomainName(origin); !ok || origin == "." {
		return nil, fmt.Errorf("cluster domain %q is not a domain name", cfg.Zone)
	}
	if len(cfg.Listen) == 0 {
		return nil, errors.New("DNS server: no address to listen on")
	}
	f, err := newForwarder(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, forward: f, ready: make(chan struct{}),
		zone: &Zone{Origin: origin, Reverse: ReverseZones(cfg.Reverse), Servers: serversOf(cfg.Listen), Index: NewIndex()}}
	s.metrics = newMetrics(cfg.Metrics, cfg.Listen, f.cache)
	f.metrics = s.metrics
	return s, nil
}

// Ready is closed once the server listens and has seen all Services.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	servers, err := s.listen()
	if err != nil {
		return err
	}
	s.cfg.Log.Info("cluster DNS is up", "zone", s.zone.Origin, "listen", fmt.Sprint(s.cfg.Listen))
	g, ctx := errgroup.WithContext(ctx)
	synced := make(chan struct{})
	for _, srv := range servers {
		g.Go(func() error {
			if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("DNS server: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error { return s.watch(ctx, synced) })
	g.Go(func() error {
		select {
		case <-synced:
			s.synced.Store(true)
			close(s.ready)
		case <-ctx.Done():
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop(servers)
		return nil
	})
	return g.Wait()
}

// stop ends servers, leaving queries under way a moment.
func stop(servers []*dns.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, srv := range servers {
		wg.Go(func() {
			if err := srv.ShutdownContext(ctx); err != nil {
				// Not started yet, or still busy: closing its socket ends it either way.
				if srv.PacketConn != nil {
					srv.PacketConn.Close()
				} else {
					srv.Listener.Close()
				}
			}
		})
	}
	wg.Wait()
}

// listen opens all sockets or none.
func (s *Server) listen() ([]*dns.Server, error) {
	var servers []*dns.Server
	fail := func(addr netip.AddrPort, err error) ([]*dns.Server, error) {
		for _, srv := range servers {
			if srv.PacketConn != nil {
				srv.PacketConn.Close()
			} else {
				srv.Listener.Close()
			}
		}
		return nil, fmt.Errorf("DNS server cannot listen on %v: %w", addr, err)
	}
	for _, addr := range s.cfg.Listen {
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			return fail(addr, err)
		}
		servers = append(servers, &dns.Server{PacketConn: udp, Handler: s, UDPSize: 4096})
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		if err != nil {
			return fail(addr, err)
		}
		servers = append(servers, &dns.Server{Listener: tcp, Handler: s, MaxTCPQueries: 1024,
			IdleTimeout: func() time.Duration { return 10 * time.Second }})
	}
	return servers, nil
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	start := time.Now()
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	resp, by := s.respond(req)
	fit(resp, req, udp)
	s.metrics.answered(req, resp, by, w.RemoteAddr(), start)
	if err := w.WriteMsg(resp); err != nil {
		s.cfg.Log.Debug("DNS answer was not taken", "client", w.RemoteAddr(), "err", err)
	}
}

// respond returns the answer to req, and whom it comes from.
func (s *Server) respond(req *dns.Msg) (*dns.Msg, origin) {
	resp := new(dns.Msg)
	resp.SetReply(req)
	resp.RecursionAvailable = true
	refused := origin{zone: rootZone}
	switch {
	case req.Opcode != dns.OpcodeQuery:
		resp.Rcode = dns.RcodeNotImplemented
		return resp, refused
	case len(req.Question) != 1:
		resp.Rcode = dns.RcodeFormatError
		return resp, refused
	case req.Question[0].Qclass != dns.ClassINET:
		resp.Rcode = dns.RcodeRefused
		return resp, refused
	}
	if opt := req.IsEdns0(); opt != nil && opt.Version() != 0 {
		resp.Rcode = dns.RcodeBadVers // RFC 6891 6.1.3
		return resp, refused
	}
	a, ours := s.zone.Answer(req.Question[0])
	if !ours {
		return s.forward.respond(req)
	}
	cluster := origin{s.zone.Origin, fromCluster}
	if !s.synced.Load() && len(a.Answer) == 0 {
		// The name may well exist.
		resp.Rcode = dns.RcodeServerFailure
		return resp, cluster
	}
	resp.Authoritative = true
	resp.Rcode, resp.Answer, resp.Extra = a.Code, a.Answer, a.Extra
	if a.Authority != nil {
		resp.Ns = []dns.RR{a.Authority}
	}
	if a.Alias != "" {
		s.resolveAlias(resp, req, a.Alias)
	}
	return resp, cluster
}

// serversOf returns the addresses of listen that clients can know the server by.
func serversOf(listen []netip.AddrPort) []netip.Addr {
	var out []netip.Addr
	for _, l := range listen {
		if !l.Addr().IsUnspecified() && !slices.Contains(out, l.Addr()) {
			out = append(out, l.Addr())
		}
	}
	return out
}

// resolveAlias adds what the alias leads to, which is asked upstream.
func (s *Server) resolveAlias(resp, req *dns.Msg, alias string) {
	q := req.Copy()
	q.Question[0].Name = alias
	up, _ := s.forward.respond(q)
	resp.Rcode = up.Rcode
	resp.Answer = append(resp.Answer, up.Answer...)
	resp.Ns = up.Ns
}

// fit makes resp what the client of req can take.
func fit(resp, req *dns.Msg, udp bool) {
	opt := req.IsEdns0()
	if opt != nil && resp.IsEdns0() == nil {
		resp.SetEdns0(udpSize, opt.Do())
	}
	if opt == nil {
		resp.Extra = withoutOPT(resp.Extra)
	}
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
		if opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), udpSize)
		}
	}
	resp.Compress = false
	if size < dns.MaxMsgSize || resp.Len() > dns.MinMsgSize {
		resp.Truncate(size)
	}
}

// udpSize is the largest UDP message in bytes: it passes an Ethernet and most tunnels in one piece (dnsflagday.net/2020).
const udpSize = 1232

func withoutOPT(rrs []dns.RR) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, rr)
		}
	}
	return out
}
