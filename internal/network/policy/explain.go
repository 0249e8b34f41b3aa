package policy

import (
	"net/netip"

	"github.com/knarr-io/knarr/internal/api"
)

// Connection is one that is asked about, by its ends as policies see them: after the translation of Services' addresses.
type Connection struct {
	Client, Server netip.Addr
	Protocol       Protocol
	Port           uint16
}

// Verdict is what the policies about one end of a connection say of it, in one direction.
type Verdict struct {
	Direction Direction
	// Guarded reports whether any policy is about the end; if none is, the connection passes.
	Guarded bool
	// Unknown reports whether the end is closed because its pod is not known.
	Unknown bool
	// Policies are those about the end.
	Policies []Judgement
}

// Judgement is what one policy says. Rule is the first of its rules that lets the connection pass, from 1 on; 0 is none.
type Judgement struct {
	Policy api.Key
	Rule   int
}

// Passes reports whether the connection passes the end.
func (v Verdict) Passes() bool {
	for _, j := range v.Policies {
		if j.Rule > 0 {
			return true
		}
	}
	return !v.Guarded
}

// Explain returns what the policies of both ends say of a connection, egress of the client and then ingress of the server, by the same chains
// and sets that [Model.All] returns. Only ends that are attached are judged, as by nodes only their own pods are.
func (m *Model) Explain(c Connection) [NumDirections]Verdict {
	out := [NumDirections]Verdict{{Direction: Egress}, {Direction: Ingress}}
	for i := range out {
		v := &out[i]
		self, peer := c.Server, c.Client
		if v.Direction == Egress {
			self, peer = c.Client, c.Server
		}
		guard := m.guards[guardKey{v.Direction, self}]
		if guard == nil || self == peer {
			continue // nobody is kept from itself
		}
		v.Guarded, v.Unknown = true, len(guard.below) == 0
		for _, ch := range guard.below {
			j := Judgement{Policy: ch.of}
			for i, r := range ch.Rules {
				if j.Rule == 0 && m.passes(r, peer, c) {
					j.Rule = ch.origins[i]
				}
			}
			v.Policies = append(v.Policies, j)
		}
	}
	return out
}

// PoliciesAt returns the policies that guard an address of this node in a direction.
func (m *Model) PoliciesAt(d Direction, addr netip.Addr) (out []api.Key) {
	if guard := m.guards[guardKey{d, addr}]; guard != nil {
		for _, ch := range guard.below {
			out = append(out, ch.of)
		}
	}
	return out
}

// passes reports whether r lets a connection with that peer pass.
func (m *Model) passes(r Rule, peer netip.Addr, c Connection) bool {
	return (r.Peers == "" || m.sets[r.Peers].has(Element{Addr: peer})) &&
		(r.NamedPorts == "" || m.sets[r.NamedPorts].has(Element{Addr: c.Server, Protocol: c.Protocol, Port: c.Port})) &&
		(r.Ports == "" || m.sets[r.Ports].has(Element{Protocol: c.Protocol, Port: c.Port})) &&
		(r.Protocol == 0 || r.Protocol == c.Protocol) &&
		(r.First == 0 || r.First <= c.Port && c.Port <= r.Last)
}

// has reports whether e is an element of the set, or in one of its ranges.
func (s *set) has(e Element) bool {
	switch s.Kind {
	case Ranges:
		for _, r := range s.Ranges {
			if !e.Addr.Less(r.First) && !r.Last.Less(e.Addr) {
				return true
			}
		}
		return false
	case PortNumbers:
		for _, o := range s.Elements {
			if o == e {
				return true
			}
		}
		return false
	}
	return s.elements[e].pods > 0
}
