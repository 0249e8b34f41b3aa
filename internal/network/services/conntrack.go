package services

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Flow matches UDP flows that the connection tracker still leads where they must no longer go. Other than TCP
// connections, they have no end, and clients that keep their port would stay with an endpoint that is gone.
type Flow struct {
	Addr     netip.Addr     // frontend address; the zero Addr matches any (node ports)
	Port     uint16         // frontend port
	Endpoint netip.AddrPort // the endpoint that is gone; the zero AddrPort matches flows that were led nowhere
}

// StaleFlows returns the UDP flows made stale by c, which t has been told to be Written.
func (t *Table) StaleFlows(c Changes) []FlowFilter {
	var out []FlowFilter
	had := map[Key]bool{}
	for _, e := range c.Delete {
		if e.Proto != UDP {
			continue
		}
		switch e.Set {
		case Endpoints, NodePortEndpoints:
			front, target := e.Key, netip.AddrPortFrom(e.Value.Addr, e.Value.Port)
			front.Slot = 0
			if !t.endpoints(front)[target] {
				out = append(out, Flow{Addr: e.Key.Addr, Port: e.Key.Port, Endpoint: target})
			}
		case HostPorts, AnyHostPorts:
			out = append(out, Flow{Addr: e.Key.Addr, Port: e.Key.Port, Endpoint: netip.AddrPortFrom(e.Value.Addr, e.Value.Port)})
		}
		had[e.Key] = true
	}
	for _, e := range c.Add {
		if e.Proto != UDP || had[e.Key] {
			continue
		}
		switch e.Set {
		case Frontends, NodePorts, HostPorts, AnyHostPorts:
			out = append(out, Flow{Addr: e.Key.Addr, Port: e.Key.Port})
		}
	}
	return out
}

// endpoints returns the destinations of a frontend, given as the key of one of its endpoint slots.
func (t *Table) endpoints(front Key) map[netip.AddrPort]bool {
	out := map[netip.AddrPort]bool{}
	for _, first := range []uint32{0, outsideSlots} {
		for front.Slot = first; ; front.Slot++ {
			v, ok := t.kernel[front]
			if !ok {
				break
			}
			out[netip.AddrPortFrom(v.Addr, v.Port)] = true
		}
	}
	return out
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f Flow) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	dst, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	reply, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	dst, reply = dst.Unmap(), reply.Unmap()
	if flow.Forward.Protocol != unix.IPPROTO_UDP || flow.Forward.DstPort != f.Port || (f.Addr.IsValid() && f.Addr != dst) {
		return false
	}
	if !f.Endpoint.IsValid() {
		return reply == dst && flow.Reverse.SrcPort == f.Port
	}
	return f.Endpoint == netip.AddrPortFrom(reply, flow.Reverse.SrcPort)
}

// Strays matches all UDP flows that the table would lead elsewhere today: what changed while Knarr was away.
type Strays struct{ Table *Table }

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s Strays) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	dst, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	reply, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	dst, reply = dst.Unmap(), reply.Unmap()
	front := Key{Set: Frontends, Addr: dst, Proto: UDP, Port: flow.Forward.DstPort}
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	if _, ok := s.Table.kernel[front]; ok {
		front.Set = Endpoints
	} else if front.Set, front.Addr = NodePorts, (netip.Addr{}); reply != dst {
		// Only a flow that was led somewhere can have come to a node port: the address alone does not tell.
		if _, ok := s.Table.kernel[front]; !ok {
			return false
		}
		front.Set = NodePortEndpoints
	} else {
		return false
	}
	return !s.Table.endpoints(front)[netip.AddrPortFrom(reply, flow.Reverse.SrcPort)]
}

// FlowFilter chooses flows: a [Flow] or [Strays].
type FlowFilter = netlink.CustomConntrackFilter

// DeleteFlows removes flows of one family from the connection tracker of this network namespace: their next packet is balanced anew.
func DeleteFlows(family nft.Family, filters []FlowFilter) error {
	if len(filters) == 0 {
		return nil
	}
	af := netlink.InetFamily(unix.AF_INET)
	if family == nft.IPv6 {
		af = unix.AF_INET6
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, af, filters...); err != nil {
		return fmt.Errorf("deleting stale UDP flows: %w", err)
	}
	return nil
}
