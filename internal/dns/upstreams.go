package dns

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// checkTime is how often, at most and only when a query needs it, the file of upstream servers is looked at again.
const checkTime = 5 * time.Second

// upstreams is the list of servers to forward to.
type upstreams struct {
	own  []netip.AddrPort // where we listen ourselves
	file string           // "" for a fixed list

	mu       sync.Mutex
	servers  []netip.AddrPort
	checked  time.Time
	modified time.Time
}

func newUpstreams(cfg Config) (*upstreams, error) {
	u := &upstreams{own: cfg.Listen}
	if len(cfg.Upstreams) == 0 {
		u.file = cfg.ResolvConf
		if u.file == "" {
			u.file = "/etc/resolv.conf"
		}
		return u, nil
	}
	for _, s := range cfg.Upstreams {
		ap, err := parseServer(s)
		if err != nil {
			return nil, err
		}
		if u.isOwn(ap) {
			return nil, fmt.Errorf("upstream DNS server %s is this server itself", s)
		}
		u.servers = append(u.servers, ap)
	}
	return u, nil
}

// list returns the servers to ask, in order.
func (u *upstreams) list(now time.Time) []netip.AddrPort {
	if u.file == "" {
		return u.servers
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.checked) < checkTime && !u.checked.IsZero() {
		return u.servers
	}
	u.checked = now
	info, err := os.Stat(u.file)
	if err != nil || info.ModTime().Equal(u.modified) {
		return u.servers // without a readable file, the servers known stay
	}
	conf, err := dns.ClientConfigFromFile(u.file)
	if err != nil {
		return u.servers
	}
	u.modified = info.ModTime()
	u.servers = nil
	for _, s := range conf.Servers {
		if ap, err := parseServer(s); err == nil && !u.isOwn(ap) {
			u.servers = append(u.servers, ap)
		}
	}
	return u.servers
}

// isOwn reports whether server is where we listen; asking it would go round in a circle.
func (u *upstreams) isOwn(server netip.AddrPort) bool {
	return slices.ContainsFunc(u.own, func(l netip.AddrPort) bool {
		return l.Port() == server.Port() && (l.Addr() == server.Addr() || (l.Addr().IsUnspecified() && isLocal(server.Addr())))
	})
}
