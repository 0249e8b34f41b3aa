package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

const (
	// ttl of cluster records in seconds: short, as endpoints come and go.
	ttl = 5
	// negativeTTL is how long resolvers may remember that a name does not exist (SOA minimum, RFC 2308).
	negativeTTL = 5
	// schemaVersion is the version of the DNS specification.
	schemaVersion = "1.1.0"
)

// Zone answers questions about the cluster's names.
type Zone struct {
	// Origin is the cluster domain, lower-case with the final dot: "cluster.local.".
	Origin string
	// Reverse are the zones of the addresses for which the cluster alone knows names (services, pods); see [ReverseZones].
	Reverse []string
	// Servers are the addresses at which clients ask: those of the zone's name server.
	Servers []netip.Addr
	Index   *Index
}

// Answer is what the zone knows about a question.
type Answer struct {
	Code   int // RCODE
	Answer []dns.RR
	// Authority is the SOA record of the zone that says so, where there is nothing of what was asked for (RFC 2308 section 2).
	Authority *dns.SOA
	Extra     []dns.RR
	// Alias, if not "", is the name that the last CNAME record of Answer leads to, outside of the zone; it has to be
	// resolved for stub resolvers (RFC 1034 3.6.2).
	Alias string
}

// aliasDepth bounds the aliases followed within the zone.
const aliasDepth = 8

// Answer returns what the zone answers, or false for a question that is not the zone's.
func (z *Zone) Answer(q dns.Question) (Answer, bool) {
	name := strings.ToLower(q.Name)
	labels, ok := z.labels(name)
	if !ok {
		return z.reverse(q, name)
	}
	if q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		return Answer{Code: dns.RcodeRefused}, true
	}
	a := z.forward(q.Name, labels, q.Qtype)
	negative := len(a.Answer) == 0
	for range aliasDepth {
		labels, ok := z.labels(a.Alias)
		if a.Alias == "" || !ok {
			break
		}
		next := z.forward(a.Alias, labels, q.Qtype)
		negative = len(next.Answer) == 0
		a.Answer = append(a.Answer, next.Answer...)
		a.Extra, a.Code, a.Alias = next.Extra, next.Code, next.Alias
	}
	if _, ok := z.labels(a.Alias); ok {
		a.Code, a.Alias = dns.RcodeServerFailure, "" // a circle
	} else if negative {
		a.Authority = z.soa(z.Origin)
	}
	return a, true
}

// labels returns the labels of a name below the origin, outermost first, and whether it is in the zone.
func (z *Zone) labels(name string) ([]string, bool) {
	if name == z.Origin {
		return nil, true
	}
	rest, ok := strings.CutSuffix(name, "."+z.Origin)
	if !ok {
		return nil, false
	}
	labels := strings.Split(rest, ".")
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return labels, true
}

// forward answers for the name with these labels. qname is how the client wrote it.
func (z *Zone) forward(qname string, labels []string, qtype uint16) Answer {
	if len(labels) == 0 {
		return z.apex(qname, qtype)
	}
	switch labels[0] {
	case "dns-version":
		if len(labels) == 1 {
			return match(qtype, &dns.TXT{Hdr: header(qname, dns.TypeTXT), Txt: []string{schemaVersion}})
		}
	case "dns":
		return z.nameServer(qname, labels[1:], qtype)
	case "svc":
		return z.services(qname, labels[1:], qtype)
	case "pod":
		return z.pods(qname, labels[1:], qtype)
	}
	return nxdomain()
}

// apex answers for the zone itself.
func (z *Zone) apex(qname string, qtype uint16) Answer {
	soa := z.soa(qname)
	ns := &dns.NS{Hdr: header(qname, dns.TypeNS), Ns: z.server()}
	a := match(qtype, soa, ns)
	if qtype == dns.TypeNS {
		a.Extra = z.serverAddrs(ns.Ns, dns.TypeANY)
	}
	return a
}

// server returns the name of the zone's name server, which is this one.
func (z *Zone) server() string { return "ns.dns." + z.Origin }

func (z *Zone) serverAddrs(name string, qtype uint16) []dns.RR {
	var rrs []dns.RR
	for _, addr := range z.Servers {
		rrs = appendAddr(rrs, name, addr, qtype)
	}
	return rrs
}

// nameServer answers for [ns.]dns.ZONE.
func (z *Zone) nameServer(qname string, labels []string, qtype uint16) Answer {
	switch {
	case len(labels) == 0:
		return Answer{}
	case len(labels) == 1 && labels[0] == "ns":
		return Answer{Answer: z.serverAddrs(qname, qtype)}
	}
	return nxdomain()
}

// pods answers for A-B-C-D.NAMESPACE.pod.ZONE (2.6).
func (z *Zone) pods(qname string, labels []string, qtype uint16) Answer {
	if len(labels) == 0 {
		return Answer{}
	}
	if len(labels) > 2 || !z.Index.namespace(labels[0]) {
		return nxdomain()
	}
	if len(labels) == 1 {
		return Answer{}
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(labels[1], "-", "."))
	if err != nil {
		addr, err = netip.ParseAddr(strings.ReplaceAll(labels[1], "-", ":"))
	}
	if err != nil || addr.Zone() != "" {
		return nxdomain()
	}
	return Answer{Answer: appendAddr(nil, qname, addr.Unmap(), qtype)}
}

// soa returns the SOA record of the zone called name, which is the origin or a reverse zone.
func (z *Zone) soa(name string) *dns.SOA {
	return &dns.SOA{Hdr: header(name, dns.TypeSOA), Ns: z.server(), Mbox: "hostmaster." + z.Origin,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: negativeTTL}
}

func nxdomain() Answer { return Answer{Code: dns.RcodeNameError} }

// match returns those records that qtype asks for.
func match(qtype uint16, rrs ...dns.RR) Answer {
	var a Answer
	for _, rr := range rrs {
		if qtype == rr.Header().Rrtype || qtype == dns.TypeANY {
			a.Answer = append(a.Answer, rr)
		}
	}
	return a
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// appendAddr appends an A or AAAA record if qtype asks for the address's family.
func appendAddr(rrs []dns.RR, name string, addr netip.Addr, qtype uint16) []dns.RR {
	switch {
	case addr.Is4() && (qtype == dns.TypeA || qtype == dns.TypeANY):
		return append(rrs, &dns.A{Hdr: header(name, dns.TypeA), A: addr.AsSlice()})
	case addr.Is6() && (qtype == dns.TypeAAAA || qtype == dns.TypeANY):
		return append(rrs, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: addr.AsSlice()})
	}
	return rrs
}
