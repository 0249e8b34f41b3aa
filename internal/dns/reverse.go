package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// ReverseZones returns the zones below in-addr.arpa and ip6.arpa that hold the addresses of prefixes: a prefix that ends between two
// labels is several zones (RFC 1035 section 3.5, RFC 3596 section 2.5).
func ReverseZones(prefixes []netip.Prefix) []string {
	var out []string
	for _, p := range prefixes {
		p = p.Masked()
		label := 8
		if p.Addr().Is6() {
			label = 4
		}
		bits := (p.Bits() + label - 1) / label * label
		addr := p.Addr()
		for p.Contains(addr) {
			name, _ := dns.ReverseAddr(addr.String())
			skip := (addr.BitLen() - bits) / label
			zone := strings.Join(strings.SplitN(name, ".", skip+1)[skip:], ".")
			if !slices.Contains(out, zone) {
				out = append(out, zone)
			}
			var ok bool
			if addr, ok = following(addr, bits); !ok {
				break
			}
		}
	}
	return out
}

// following returns the first address behind the block of that many bits which begins at addr.
func following(addr netip.Addr, bits int) (netip.Addr, bool) {
	if bits == 0 {
		return addr, false
	}
	b := addr.AsSlice()
	carry := 1 << ((8 - bits%8) % 8)
	for i := (bits - 1) / 8; i >= 0 && carry > 0; i-- {
		sum := int(b[i]) + carry
		b[i], carry = byte(sum), sum>>8
	}
	next, _ := netip.AddrFromSlice(b)
	return next, carry == 0
}

// reverse answers for names of addresses (2.3.3, 2.4.3). Endpoints may have addresses outside of the reverse zones, which lead back
// to them; whatever else there is about such an address, others know.
func (z *Zone) reverse(q dns.Question, name string) (Answer, bool) {
	if !strings.HasSuffix(name, ".arpa.") {
		return Answer{}, false
	}
	zone := ""
	for _, r := range z.Reverse {
		if dns.IsSubDomain(r, name) {
			zone = r
		}
	}
	addr, full := reverseAddr(name)
	var a Answer
	switch {
	case zone != "" && (q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR):
		return Answer{Code: dns.RcodeRefused}, true
	case zone == name:
		a = z.apex(q.Name, q.Qtype)
	case full:
		pointers := z.Index.pointers(addr)
		if zone == "" && (len(pointers) == 0 || q.Qtype != dns.TypePTR) {
			return Answer{}, false
		}
		a = z.pointer(q, pointers)
	case zone == "":
		return Answer{}, false
	case !above(name):
		a = nxdomain()
	}
	if zone != "" && len(a.Answer) == 0 {
		a.Authority = z.soa(zone)
	}
	return a, true
}

// above reports whether addresses can be below a name: it has fewer labels than they have.
func above(name string) bool {
	most := 4
	if strings.HasSuffix(name, ".ip6.arpa.") {
		most = 32
	}
	return dns.CountLabel(name)-2 < most
}

// pointer answers with the names of an address.
func (z *Zone) pointer(q dns.Question, pointers []pointer) Answer {
	if len(pointers) == 0 {
		return nxdomain()
	}
	var a Answer
	if q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY {
		return a
	}
	// An address of a Service is that alone, whatever endpoints have it too.
	if i := slices.IndexFunc(pointers, func(p pointer) bool { return p.endpoint == "" }); i >= 0 {
		pointers = pointers[i : i+1]
	}
	for _, p := range pointers {
		name := p.key.Name + "." + p.key.Namespace + ".svc." + z.Origin
		if p.endpoint != "" {
			name = p.endpoint + "." + name
		}
		a.Answer = append(a.Answer, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: name})
	}
	return a
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
