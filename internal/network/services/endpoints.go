package services

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// endpoint is one destination of a Service port.
type endpoint struct {
	addr               netip.Addr
	port               uint16
	local              bool // on this node
	nodeHint, zoneHint hint
}

// hint is what an endpoint's hints say of this node, or of its zone.
type hint uint8

const (
	noHint    hint = iota // nothing
	elsewhere             // the endpoint is for others
	here
)

// candidates are the endpoints of one Service port by state: ready ones, and those that still serve while they terminate.
type candidates struct {
	ready, terminating []endpoint
}

// choose returns the endpoints to use: ready ones or, if there are none, terminating ones that still serve (KEP-1669).
func (c candidates) choose() []endpoint {
	if len(c.ready) > 0 {
		return c.ready
	}
	return c.terminating
}

// hinted returns the candidates that the hints have for this node or, if that is not so, for its zone (KEP-3015, KEP-2433). Hints
// count only if every ready endpoint has some: a controller that is about to write or remove them must not leave a few endpoints
// with all of the traffic. Where none of them leads here, all candidates stay.
func (c candidates) hinted() candidates {
	for _, of := range []func(endpoint) hint{
		func(e endpoint) hint { return e.nodeHint },
		func(e endpoint) hint { return e.zoneHint },
	} {
		missing := slices.ContainsFunc(c.ready, func(e endpoint) bool { return of(e) == noHint })
		if chosen := filter(c.ready, func(e endpoint) bool { return of(e) == here }); !missing && len(chosen) > 0 {
			return candidates{ready: chosen, terminating: c.terminating}
		}
	}
	return c
}

// onNode returns the candidates on this node.
func (c candidates) onNode() candidates {
	local := func(e endpoint) bool { return e.local }
	return candidates{ready: filter(c.ready, local), terminating: filter(c.terminating, local)}
}

func filter(endpoints []endpoint, keep func(endpoint) bool) []endpoint {
	var out []endpoint
	for _, e := range endpoints {
		if keep(e) {
			out = append(out, e)
		}
	}
	return out
}

// endpointsOf returns the endpoints of port sp that have addresses of the family, each once (an endpoint may be in two slices
// while it moves from one to the other), ordered by address.
func (p *planner) endpointsOf(sp *corev1.ServicePort) candidates {
	var c candidates
	for _, slice := range p.slices {
		if _, headless := slice.Labels[corev1.IsHeadlessService]; headless || slice.AddressType != addressType(p.family) {
			continue
		}
		port, ok := slicePort(slice, sp)
		if !ok {
			continue
		}
		for i := range slice.Endpoints {
			ep := &slice.Endpoints[i]
			if len(ep.Addresses) == 0 {
				continue
			}
			// All addresses of an endpoint are interchangeable; consumers use the first (EndpointSlice API).
			addr, err := netip.ParseAddr(ep.Addresses[0])
			if err != nil || nft.FamilyOf(addr) != p.family {
				continue
			}
			e := endpoint{addr: addr, port: port, local: ep.NodeName != nil && *ep.NodeName == p.node.Name}
			e.nodeHint, e.zoneHint = p.node.hints(ep.Hints)
			switch {
			case ep.Conditions.Ready == nil || *ep.Conditions.Ready:
				c.ready = append(c.ready, e)
			case isTrue(ep.Conditions.Serving) && isTrue(ep.Conditions.Terminating):
				c.terminating = append(c.terminating, e)
			}
		}
	}
	c.ready, c.terminating = unique(c.ready), unique(c.terminating)
	return c
}

func addressType(f nft.Family) discoveryv1.AddressType {
	if f == nft.IPv6 {
		return discoveryv1.AddressTypeIPv6
	}
	return discoveryv1.AddressTypeIPv4
}

// hints returns what an endpoint's hints say of the node and its zone.
func (n Node) hints(h *discoveryv1.EndpointHints) (node, zone hint) {
	if h == nil {
		return noHint, noHint
	}
	if len(h.ForNodes) > 0 {
		node = elsewhere
	}
	if slices.ContainsFunc(h.ForNodes, func(f discoveryv1.ForNode) bool { return f.Name == n.Name }) {
		node = here
	}
	if len(h.ForZones) > 0 {
		zone = elsewhere
	}
	if slices.ContainsFunc(h.ForZones, func(f discoveryv1.ForZone) bool { return f.Name == n.Zone }) {
		zone = here
	}
	return node, zone
}

// slicePort returns the endpoint port that belongs to sp: the one of the same name and protocol.
func slicePort(slice *discoveryv1.EndpointSlice, sp *corev1.ServicePort) (uint16, bool) {
	for _, p := range slice.Ports {
		name, proto := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			proto = *p.Protocol
		}
		if name == sp.Name && proto == cmp.Or(sp.Protocol, corev1.ProtocolTCP) && p.Port != nil {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

func unique(endpoints []endpoint) []endpoint {
	slices.SortFunc(endpoints, func(a, b endpoint) int { return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.port, b.port)) })
	return slices.CompactFunc(endpoints, func(a, b endpoint) bool { return a.addr == b.addr && a.port == b.port })
}

func isTrue(b *bool) bool { return b != nil && *b }
