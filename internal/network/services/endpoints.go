package services

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
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

// onNode returns the candidates on this node.
func (c candidates) onNode() candidates {
	return candidates{ready: localOnly(c.ready), terminating: localOnly(c.terminating)}
}

func localOnly(endpoints []endpoint) []endpoint {
	var out []endpoint
	for _, e := range endpoints {
		if e.local {
			out = append(out, e)
		}
	}
	return out
}

// endpointsOf returns the IPv4 endpoints of port sp, each once (an endpoint may be in two slices while it moves from one to
// the other), ordered by address.
func endpointsOf(sp *corev1.ServicePort, epSlices []*discoveryv1.EndpointSlice, nodeName string) candidates {
	var c candidates
	for _, slice := range epSlices {
		if _, headless := slice.Labels[corev1.IsHeadlessService]; headless || slice.AddressType != discoveryv1.AddressTypeIPv4 {
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
			if err != nil || !addr.Is4() {
				continue
			}
			e := endpoint{addr: addr, port: port, local: ep.NodeName != nil && *ep.NodeName == nodeName}
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
