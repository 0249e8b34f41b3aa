package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// services answers for [[[HOSTNAME or _PORT._PROTO.]SERVICE.]NAMESPACE.]svc.ZONE.
func (z *Zone) services(qname string, labels []string, qtype uint16) Answer {
	switch {
	case len(labels) == 0:
		return Answer{}
	case len(labels) == 1 && z.Index.namespace(labels[0]):
		return Answer{}
	case len(labels) == 1:
		return nxdomain()
	}
	e := z.Index.service(labels[0], labels[1])
	if e == nil {
		return nxdomain()
	}
	if e.externalName != "" {
		return e.alias(qname, labels[2:], qtype)
	}
	var found []target
	switch len(labels) {
	case 2:
		found = e.targets(z)
	case 3:
		if proto, ok := strings.CutPrefix(labels[2], "_"); ok {
			return e.protocol(proto)
		}
		found = only(e.endpointTargets(z), func(t target) bool { return t.endpoint == labels[2] })
	case 4:
		proto, name := strings.TrimPrefix(labels[2], "_"), strings.TrimPrefix(labels[3], "_")
		found = only(e.targets(z), func(t target) bool { return t.port.protocol == proto && t.port.name == name })
	}
	if len(found) == 0 {
		return nxdomain()
	}
	return answerTargets(qname, found, qtype)
}

// target is one port at one address of a Service: what CoreDNS has a record for.
type target struct {
	name     string // that the address goes by
	endpoint string // its label below the Service's name, for endpoints
	addr     netip.Addr
	port     port
}

// targets returns what the Service's own name stands for: its cluster IPs or, where it is headless, its endpoints.
func (e *entry) targets(z *Zone) []target {
	if e.headless {
		return e.endpointTargets(z)
	}
	var out []target
	for _, p := range e.ports {
		for _, addr := range e.clusterIPs {
			out = append(out, target{name: e.name(z), addr: addr, port: p})
		}
	}
	return out
}

// endpointTargets returns the endpoints, those of a Service with cluster IPs too.
func (e *entry) endpointTargets(z *Zone) []target {
	var out []target
	for _, ep := range e.endpoints {
		for _, p := range ep.ports {
			out = append(out, target{name: ep.name + "." + e.name(z), endpoint: ep.name, addr: ep.addr, port: p})
		}
	}
	return out
}

// name returns the full name of the Service.
func (e *entry) name(z *Zone) string { return e.key.Name + "." + e.key.Namespace + ".svc." + z.Origin }

func only(targets []target, keep func(target) bool) []target {
	return slices.DeleteFunc(targets, func(t target) bool { return !keep(t) })
}

// answerTargets answers with addresses (specification 2.3.1, 2.4.1) or ports (2.3.2, 2.4.2): CoreDNS has both for any of a Service's
// names.
func answerTargets(qname string, targets []target, qtype uint16) Answer {
	var a Answer
	if qtype != dns.TypeSRV {
		a.Answer = addressesOf(qname, targets, qtype)
	}
	if qtype == dns.TypeSRV || qtype == dns.TypeANY {
		a.Answer, a.Extra = appendPorts(a.Answer, qname, targets)
	}
	return a
}

// addressesOf returns each address once, beginning at a random one, so that clients that take the first spread.
func addressesOf(qname string, targets []target, qtype uint16) []dns.RR {
	if len(targets) == 1 {
		return appendAddr(nil, qname, targets[0].addr, qtype)
	}
	seen := make(map[netip.Addr]bool, len(targets))
	var rrs []dns.RR
	for _, t := range targets {
		if !seen[t.addr] {
			seen[t.addr] = true
			rrs = appendAddr(rrs, qname, t.addr, qtype)
		}
	}
	if len(rrs) < 2 {
		return rrs
	}
	i := rand.IntN(len(rrs))
	return append(rrs[i:len(rrs):len(rrs)], rrs[:i]...)
}

// appendPorts appends an SRV record for each port and name, and returns the addresses of the names beside them.
func appendPorts(rrs []dns.RR, qname string, targets []target) (answer, extra []dns.RR) {
	type srv struct {
		name string
		port uint16
	}
	type host struct {
		name string
		addr netip.Addr
	}
	// Equal shares, as far as a weight can say so (RFC 2782).
	weight := uint16(max(1, 100/len(targets)))
	ports, hosts := map[srv]bool{}, map[host]bool{}
	for _, t := range targets {
		if t.port.number == 0 {
			continue // the endpoints of a Service without ports
		}
		if p := (srv{t.name, t.port.number}); !ports[p] {
			ports[p] = true
			rrs = append(rrs, &dns.SRV{Hdr: header(qname, dns.TypeSRV), Priority: 0, Weight: weight, Port: t.port.number, Target: t.name})
		}
		if h := (host{t.name, t.addr}); !hosts[h] {
			hosts[h] = true
			extra = appendAddr(extra, t.name, t.addr, dns.TypeANY)
		}
	}
	return rrs, extra
}

// alias answers for a Service of type ExternalName (2.5): it has nothing below its name.
func (e *entry) alias(qname string, below []string, qtype uint16) Answer {
	if _, err := netip.ParseAddr(strings.TrimSuffix(e.externalName, ".")); err == nil || len(below) > 0 {
		return nxdomain() // an address is no name to lead to
	}
	a := Answer{Answer: []dns.RR{&dns.CNAME{Hdr: header(qname, dns.TypeCNAME), Target: e.externalName}}}
	if qtype != dns.TypeCNAME {
		a.Alias = e.externalName
	}
	return a
}

// protocol answers for _PROTO.SERVICE, which exists if any SRV record is below it (RFC 8020).
func (e *entry) protocol(proto string) Answer {
	ports := e.ports
	for _, ep := range e.endpoints {
		ports = append(ports[:len(ports):len(ports)], ep.ports...)
	}
	if slices.ContainsFunc(ports, func(p port) bool { return p.protocol == proto && p.name != "" }) {
		return Answer{}
	}
	return nxdomain()
}
