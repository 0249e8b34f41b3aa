package dns

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	cacheSize = 8192 // answers
	// Upstream answers are kept as long as they allow, within these bounds.
	maxTTL         = 5 * time.Minute
	maxNegativeTTL = 30 * time.Second
)

// cache holds upstream answers. It is safe for concurrent use.
type cache struct {
	size int

	mu      sync.Mutex
	answers map[cacheKey]cached
}

// cacheKey is everything an upstream answer depends on.
type cacheKey struct {
	name      string
	qtype     uint16
	do, check bool // DNSSEC records wanted, checking disabled
}

func (k cacheKey) String() string { return fmt.Sprint(k.name, " ", k.qtype, k.do, k.check) }

type cached struct {
	msg             *dns.Msg
	stored, expires time.Time
}

func newCache(size int) *cache { return &cache{size: size, answers: map[cacheKey]cached{}} }

func keyOf(req *dns.Msg) cacheKey {
	opt := req.IsEdns0()
	return cacheKey{strings.ToLower(req.Question[0].Name), req.Question[0].Qtype, opt != nil && opt.Do(), req.CheckingDisabled}
}

// get returns a copy of the answer with the TTLs that are left, or nil.
func (c *cache) get(key cacheKey, now time.Time) *dns.Msg {
	c.mu.Lock()
	e, ok := c.answers[key]
	c.mu.Unlock()
	if !ok || !now.Before(e.expires) {
		return nil
	}
	msg := e.msg.Copy()
	age := uint32(now.Sub(e.stored) / time.Second)
	for _, section := range [][]dns.RR{msg.Answer, msg.Ns, msg.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(age, h.Ttl)
			}
		}
	}
	return msg
}

// entries returns how many answers are kept that say there is nothing, or of the others.
func (c *cache) entries(denial bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, e := range c.answers {
		if denies(e.msg) == denial {
			n++
		}
	}
	return n
}

// denies reports whether msg says that there is nothing of what was asked for (RFC 2308).
func denies(msg *dns.Msg) bool { return msg.Rcode == dns.RcodeNameError || len(msg.Answer) == 0 }

// put keeps msg if it may be kept.
func (c *cache) put(key cacheKey, msg *dns.Msg, now time.Time) {
	life := lifetime(msg)
	if life <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) >= c.size {
		c.evict(now)
	}
	c.answers[key] = cached{msg: msg.Copy(), stored: now, expires: now.Add(life)}
}

// evict makes room: whatever expired among a sample of the entries goes, and at least a few of them (map order is random).
func (c *cache) evict(now time.Time) {
	sample, removed := c.size/16+1, 0
	for key, e := range c.answers {
		if sample--; sample < 0 && removed > 0 {
			return
		}
		if !now.Before(e.expires) || removed < c.size/64+1 {
			delete(c.answers, key)
			removed++
		}
	}
}

// lifetime returns how long an answer may be kept; 0 means not at all (RFC 2308).
func lifetime(msg *dns.Msg) time.Duration {
	switch {
	case msg.Truncated || (msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError):
		return 0
	case denies(msg):
		for _, rr := range msg.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				return min(time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second, maxNegativeTTL)
			}
		}
		return 0
	}
	life := maxTTL
	for _, section := range [][]dns.RR{msg.Answer, msg.Ns} {
		for _, rr := range section {
			life = min(life, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	return life
}
