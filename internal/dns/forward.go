package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	// tryTime is how long one upstream server has to answer; a query goes to at most maxTries of them, so that the client's
	// resolver, which waits five seconds, gets an answer of some kind.
	tryTime  = 2 * time.Second
	maxTries = 2
	// maxForwards bounds the questions asked upstream at one time.
	maxForwards = 1000
)

var (
	errNoUpstream = errors.New("there is no upstream DNS server")
	errBusy       = errors.New("too many questions are waiting for the upstream DNS servers")
)

// forwarder asks upstream servers.
type forwarder struct {
	upstreams *upstreams
	cache     *cache
	metrics   *metrics
	flights   singleflight.Group // equal questions are asked once
	slots     chan struct{}
	preferred atomic.Int64 // the server that answered last

	mu    sync.Mutex
	asked map[question]int // queries on their way, to recognise them when they come back
}

// question identifies a query sent upstream.
type question struct {
	id uint16
	q  dns.Question
}

func newForwarder(cfg Config) (*forwarder, error) {
	u, err := newUpstreams(cfg)
	if err != nil {
		return nil, err
	}
	return &forwarder{upstreams: u, cache: newCache(cacheSize), slots: make(chan struct{}, maxForwards), asked: map[question]int{}}, nil
}

// respond answers req from the cache or upstream, and says which. It never returns nil.
func (f *forwarder) respond(req *dns.Msg) (*dns.Msg, origin) {
	up := origin{rootZone, fromForward}
	if f.ours(req) {
		// An upstream server asks us: refuse, or the query would go round until it times out.
		return new(dns.Msg).SetRcode(req, dns.RcodeRefused), up
	}
	key := keyOf(req)
	resp := f.cache.get(key, time.Now())
	f.metrics.cached(resp)
	if resp != nil {
		return reply(resp, req), origin{rootZone, fromCache}
	}
	v, err, _ := f.flights.Do(key.String(), func() (any, error) {
		resp, err := f.ask(req)
		if err == nil {
			f.cache.put(key, resp, time.Now())
		}
		return resp, err
	})
	if err != nil {
		return new(dns.Msg).SetRcode(req, dns.RcodeServerFailure), up
	}
	return reply(v.(*dns.Msg).Copy(), req), up
}

// reply makes resp, which is the caller's, an answer to req.
func reply(resp, req *dns.Msg) *dns.Msg {
	resp.Id, resp.Response, resp.RecursionDesired, resp.RecursionAvailable = req.Id, true, req.RecursionDesired, true
	resp.Question = req.Question // in the client's spelling
	resp.Extra = withoutOPT(resp.Extra)
	return resp
}

// ask puts req to the upstream servers in turn, beginning with the one that answered last.
func (f *forwarder) ask(req *dns.Msg) (*dns.Msg, error) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		f.metrics.rejected.Inc()
		return nil, errBusy
	}
	servers := f.upstreams.list(time.Now())
	if len(servers) == 0 {
		return nil, errNoUpstream
	}
	first := int(f.preferred.Load()) % len(servers)
	var errs error
	for i := range min(len(servers), maxTries) {
		n := (first + i) % len(servers)
		start := time.Now()
		resp, err := f.exchange(req, servers[n])
		f.metrics.asked(servers[n], resp, start)
		if err == nil {
			f.preferred.Store(int64(n))
			return resp, nil
		}
		errs = errors.Join(errs, err)
	}
	f.preferred.Store(int64(first+1) % int64(len(servers)))
	return nil, errs
}

// exchange asks one server, over TCP if the answer does not fit into a datagram.
func (f *forwarder) exchange(req *dns.Msg, server netip.AddrPort) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.Question = slices.Clone(req.Question)
	q.RecursionDesired, q.CheckingDisabled = true, req.CheckingDisabled
	opt := req.IsEdns0()
	q.SetEdns0(udpSize, opt != nil && opt.Do())
	q.Id = uint16(rand.Uint32())
	defer f.note(q)()

	ctx, cancel := context.WithTimeout(context.Background(), tryTime)
	defer cancel()
	resp, _, err := (&dns.Client{Net: "udp", Timeout: tryTime}).ExchangeContext(ctx, q, server.String())
	if err == nil && resp.Truncated {
		resp, _, err = (&dns.Client{Net: "tcp", Timeout: tryTime}).ExchangeContext(ctx, q, server.String())
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", server, err)
	}
	switch {
	case len(resp.Question) != 1 || resp.Question[0] != q.Question[0]:
		return nil, fmt.Errorf("%v answered another question", server)
	case resp.Rcode == dns.RcodeServerFailure || resp.Rcode == dns.RcodeRefused || resp.Rcode == dns.RcodeNotImplemented:
		return nil, fmt.Errorf("%v answered %s", server, dns.RcodeToString[resp.Rcode])
	}
	return resp, nil
}

// note remembers q until the returned function is called.
func (f *forwarder) note(q *dns.Msg) func() {
	key := question{q.Id, q.Question[0]}
	f.mu.Lock()
	f.asked[key]++
	f.mu.Unlock()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.asked[key]--; f.asked[key] == 0 {
			delete(f.asked, key)
		}
	}
}

// ours says that req is a query we sent upstream ourselves. Forwarders make their own IDs, so that this recognises a direct
// way back only; longer ones end by the singleflight's time-out.
func (f *forwarder) ours(req *dns.Msg) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[question{req.Id, req.Question[0]}] > 0
}

// dnsPort is the port of servers given without one.
const dnsPort = 53

// parseServer reads ADDR or ADDR:PORT.
func parseServer(s string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr, dnsPort), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, fmt.Errorf("upstream DNS server %q is not ADDRESS or ADDRESS:PORT", s)
	}
	return ap, nil
}

// isLocal reports whether addr is one of this machine's.
func isLocal(addr netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
			return true
		}
	}
	return false
}
