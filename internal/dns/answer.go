package dns

import (
	"math/rand/v2"
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
	// Reverse are the networks for whose addresses the cluster alone knows names (services, pods).
	Reverse []netip.Prefix
	Index   *Index
}

// Answer is what the zone knows about a question.
type Answer struct {
	Code   int // RCODE
	Answer []dns.RR
	Extra  []dns.RR
	// Alias, if not "", is the name that the last CNAME record of Answer leads to, outside of the zone; it has to be
	// resolved for stub resolvers (RFC 1034 3.6.2).
	Alias string
}

// aliasDepth bounds the aliases followed within the zone.
const aliasDepth = 8

// Answer returns what the zone answers, or false for a question that is not the zone's.
func (z *Zone) Answer(q dns.Question) (Answer, bool) {
	name := strings.ToLower(q.Name)
	if labels, ok := z.labels(name); ok {
		a := z.forward(q.Name, labels, q.Qtype)
		z.followAlias(&a, q.Qtype)
		return a, true
	}
	if addr, ok := reverseAddr(name); ok {
		return z.pointer(q, addr)
	}
	return Answer{}, false
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
	case "svc":
		return z.services(qname, labels[1:], qtype)
	case "pod":
		return z.pods(qname, labels[1:], qtype)
	}
	return nxdomain()
}

// apex answers for the zone itself.
func (z *Zone) apex(qname string, qtype uint16) Answer {
	soa := z.SOA()
	soa.Hdr.Name = qname
	return match(qtype, soa, &dns.NS{Hdr: header(qname, dns.TypeNS), Ns: "ns.dns." + z.Origin})
}

// services answers for [[[HOSTNAME or _PORT._PROTO.]SERVICE.]NAMESPACE.]svc.ZONE.
func (z *Zone) services(qname string, labels []string, qtype uint16) Answer {
	if len(labels) == 0 {
		return Answer{}
	}
	if len(labels) == 1 {
		if _, exists := z.Index.service(labels[0], ""); !exists {
			return nxdomain()
		}
		return Answer{}
	}
	e, _ := z.Index.service(labels[0], labels[1])
	if e == nil {
		return nxdomain()
	}
	switch len(labels) {
	case 2:
		return z.service(qname, e, qtype)
	case 3:
		if proto, ok := strings.CutPrefix(labels[2], "_"); ok {
			return e.protocol(proto)
		}
		return z.endpoint(qname, e, labels[2], qtype)
	case 4:
		proto, ok1 := strings.CutPrefix(labels[2], "_")
		name, ok2 := strings.CutPrefix(labels[3], "_")
		if ok1 && ok2 {
			return z.srv(qname, e, name, proto, qtype)
		}
	}
	return nxdomain()
}

// service answers for the Service's own name (specification 2.3.1, 2.4.1, 2.5).
func (z *Zone) service(qname string, e *entry, qtype uint16) Answer {
	switch {
	case e.externalName != "":
		a := Answer{Answer: []dns.RR{&dns.CNAME{Hdr: header(qname, dns.TypeCNAME), Target: e.externalName}}}
		if qtype != dns.TypeCNAME {
			a.Alias = e.externalName
		}
		return a
	case e.headless:
		if len(e.endpoints) == 0 {
			return nxdomain()
		}
		rrs := make([]dns.RR, 0, len(e.endpoints))
		for _, ep := range rotated(e.endpoints) {
			rrs = appendAddr(rrs, qname, ep.addr, qtype)
		}
		return Answer{Answer: rrs}
	}
	var rrs []dns.RR
	for _, addr := range e.clusterIPs {
		rrs = appendAddr(rrs, qname, addr, qtype)
	}
	return Answer{Answer: rrs}
}

// endpoint answers for the name of one endpoint of a headless Service (2.4.1).
func (z *Zone) endpoint(qname string, e *entry, name string, qtype uint16) Answer {
	found := false
	var rrs []dns.RR
	for _, ep := range e.endpoints {
		if ep.name == name {
			found = true
			rrs = appendAddr(rrs, qname, ep.addr, qtype)
		}
	}
	if !found {
		return nxdomain()
	}
	return Answer{Answer: rrs}
}

// protocol answers for _PROTO.SERVICE, which exists if any SRV record is below it (RFC 8020).
func (e *entry) protocol(proto string) Answer {
	for _, p := range e.allPorts() {
		if p.protocol == proto {
			return Answer{}
		}
	}
	return nxdomain()
}

func (e *entry) allPorts() []port {
	ports := e.ports
	for _, ep := range e.endpoints {
		ports = append(ports[:len(ports):len(ports)], ep.ports...)
	}
	return ports
}

// srv answers for _PORT._PROTO.SERVICE (2.3.2, 2.4.2), with the addresses beside it.
func (z *Zone) srv(qname string, e *entry, name, proto string, qtype uint16) Answer {
	base := e.key.Name + "." + e.key.Namespace + ".svc." + z.Origin
	var a Answer
	var targets []struct {
		port uint16
		name string
		addr []netip.Addr
	}
	add := func(port uint16, name string, addr ...netip.Addr) {
		targets = append(targets, struct {
			port uint16
			name string
			addr []netip.Addr
		}{port, name, addr})
	}
	for _, p := range e.ports {
		if p.name == name && p.protocol == proto {
			add(p.number, base, e.clusterIPs...)
		}
	}
	for _, ep := range e.endpoints {
		for _, p := range ep.ports {
			if p.name == name && p.protocol == proto {
				add(p.number, ep.name+"."+base, ep.addr)
			}
		}
	}
	if len(targets) == 0 {
		return nxdomain()
	}
	if qtype != dns.TypeSRV && qtype != dns.TypeANY {
		return a
	}
	for _, t := range targets {
		// Equal shares, as far as a weight can say so (RFC 2782).
		weight := uint16(max(1, 100/len(targets)))
		a.Answer = append(a.Answer, &dns.SRV{Hdr: header(qname, dns.TypeSRV), Priority: 0, Weight: weight, Port: t.port, Target: t.name})
		for _, addr := range t.addr {
			a.Extra = appendAddr(a.Extra, t.name, addr, dns.TypeANY)
		}
	}
	return a
}

// pods answers for A-B-C-D.NAMESPACE.pod.ZONE (2.6).
func (z *Zone) pods(qname string, labels []string, qtype uint16) Answer {
	switch len(labels) {
	case 0, 1:
		return Answer{}
	case 2:
		text := labels[1]
		addr, err := netip.ParseAddr(strings.ReplaceAll(text, "-", "."))
		if err != nil {
			addr, err = netip.ParseAddr(strings.ReplaceAll(text, "-", ":"))
		}
		if err == nil && addr.Zone() == "" {
			return Answer{Answer: appendAddr(nil, qname, addr, qtype)}
		}
	}
	return nxdomain()
}

// pointer answers PTR questions (2.3.3, 2.4.3).
func (z *Zone) pointer(q dns.Question, addr netip.Addr) (Answer, bool) {
	pointers := z.Index.pointers(addr)
	if len(pointers) == 0 {
		for _, p := range z.Reverse {
			if p.Contains(addr) {
				return nxdomain(), true
			}
		}
		return Answer{}, false
	}
	var a Answer
	if q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY {
		return a, true
	}
	for _, p := range pointers {
		name := p.key.Name + "." + p.key.Namespace + ".svc." + z.Origin
		if p.endpoint != "" {
			name = p.endpoint + "." + name
		}
		a.Answer = append(a.Answer, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: name})
	}
	return a, true
}

// followAlias goes on within the zone, where an ExternalName leads to another name of it.
func (z *Zone) followAlias(a *Answer, qtype uint16) {
	for range aliasDepth {
		if a.Alias == "" {
			return
		}
		labels, ok := z.labels(a.Alias)
		if !ok {
			return
		}
		next := z.forward(a.Alias, labels, qtype)
		a.Answer = append(a.Answer, next.Answer...)
		a.Extra, a.Code, a.Alias = next.Extra, next.Code, next.Alias
	}
	a.Code, a.Alias = dns.RcodeServerFailure, "" // a circle
}

// SOA returns the zone's SOA record, which goes with negative answers (RFC 2308).
func (z *Zone) SOA() *dns.SOA {
	return &dns.SOA{Hdr: header(z.Origin, dns.TypeSOA), Ns: "ns.dns." + z.Origin, Mbox: "hostmaster." + z.Origin,
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

// rotated returns endpoints beginning at a random one, so that clients that take the first spread.
func rotated(endpoints []endpoint) []endpoint {
	i := rand.IntN(len(endpoints))
	return append(endpoints[i:len(endpoints):len(endpoints)], endpoints[:i]...)
}

// reverseAddr returns the address of a name below in-addr.arpa or ip6.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return addr, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		b.WriteByte(rest[i])
		if n := (62 - i) / 2; n%4 == 3 && n != 31 {
			b.WriteByte(':')
		}
	}
	addr, err := netip.ParseAddr(b.String())
	return addr, err == nil && !addr.Is4In6() && addr.Zone() == ""
}
