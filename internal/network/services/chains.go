package services

import (
	"net/netip"

	"github.com/google/nftables"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Layout is what the fixed rules depend on. All its addresses are of one family, which is that of the table.
type Layout struct {
	Overlay     string       // name of the link to pods of other nodes; it need not exist
	PodCIDR     netip.Prefix // pods of this node
	ClusterCIDR netip.Prefix // pods of all nodes
	ServiceCIDR netip.Prefix
	Local       []netip.Addr // Service addresses that the node itself has, see [Node]
}

// Family returns the family of the table.
func (l Layout) Family() nft.Family { return nft.FamilyOf(l.PodCIDR.Addr()) }

// loopback has the addresses that never leave a machine; route_localnet makes exceptions for IPv4 alone.
var loopback = netip.MustParsePrefix("127.0.0.0/8")

func multicast(f nft.Family) netip.Prefix {
	if f == nft.IPv6 {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4)
}

func natAt(at *nftables.ChainHook, priority *nftables.ChainPriority) *nft.Hook {
	return &nft.Hook{Type: nftables.ChainTypeNAT, At: *at, Priority: *priority}
}

func filterAt(at *nftables.ChainHook, priority *nftables.ChainPriority) *nft.Hook {
	return &nft.Hook{Type: nftables.ChainTypeFilter, At: *at, Priority: *priority}
}

// fixed builds the fixed part of the table.
type fixed struct {
	Layout
	program
}

// chains returns the fixed part of the table, called chains first.
func (x fixed) chains() []nft.Chain {
	of := x.sets.of
	chains := []nft.Chain{
		{Name: "reject", Rules: []nft.Rule{nft.Join(nft.ProtocolIs(uint8(TCP), x.proto), nft.Reset()), x.Refuse()}},
		{Name: "services", Rules: []nft.Rule{
			nft.Join(x.frontend(), nft.GoWhere(x.addr, of[Frontends])),
			nft.Join(x.frontend(), x.toEndpoint(x.addr, HostPorts)),
			nft.Join(nft.ToThisNode(x.scratch), x.portOf(), nft.GoWhere(x.proto, of[NodePorts])),
			nft.Join(nft.ToThisNode(x.scratch), x.portOf(), x.toEndpoint(x.proto, AnyHostPorts)),
		}},
		{Name: "prerouting", Hook: natAt(nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest), Rules: []nft.Rule{
			nft.Join(x.fromOutside(), x.frontend(), nft.GoWhere(x.addr, of[OutsideFrontends])),
			nft.Join(x.fromOutside(), nft.ToThisNode(x.scratch), x.portOf(), nft.GoWhere(x.proto, of[OutsideNodePorts])),
			nft.Jump("services"),
		}},
		{Name: "output", Hook: natAt(nftables.ChainHookOutput, nftables.ChainPriorityNATDest), Rules: []nft.Rule{nft.Jump("services")}},
		{Name: "postrouting", Hook: natAt(nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource), Rules: x.masquerading()},
		{Name: "filter-input", Hook: filterAt(nftables.ChainHookInput, nftables.ChainPriorityFilter), Rules: []nft.Rule{
			nft.Join(x.newConnection(), x.translated(false), x.frontend(), nft.InSet(x.addr, of[Rejects]), nft.Goto("reject")),
			nft.Join(x.newConnection(), x.translated(false), x.portOf(), nft.InSet(x.proto, of[NodeRejects]), nft.Goto("reject")),
		}},
		{Name: "filter-forward", Hook: filterAt(nftables.ChainHookForward, nftables.ChainPriorityFilter), Rules: x.refusing()},
		{Name: "filter-output", Hook: filterAt(nftables.ChainHookOutput, nftables.ChainPriorityFilter), Rules: x.refusing()},
	}
	if x.program.Family == nft.IPv4 {
		// Pod links, and with other nodes also the links to them, accept routed loopback addresses, so that a node port on
		// 127.0.0.1 works; nobody must use that to reach what listens on the node's loopback (CVE-2020-8558). No packet from
		// elsewhere has such an address (RFC 1122 section 3.2.1.3); answers get theirs after this hook. IPv6 has no such setting.
		chains = append(chains, nft.Chain{Name: "loopback", Hook: filterAt(nftables.ChainHookPrerouting, nftables.ChainPriorityRaw), Rules: []nft.Rule{
			nft.Join(nft.NotComesBy("lo"), x.destination(), nft.InPrefix(x.addr, x.scratch, loopback), nft.Drop()),
		}})
	}
	return chains
}

// fromOutside matches clients that are no pods. Traffic of the node itself never passes prerouting on its way out.
func (x fixed) fromOutside() nft.Rule {
	return nft.Join(x.source(), nft.NotInPrefix(x.client, x.scratch, x.ClusterCIDR))
}

// masquerading returns the rules that decide which connections get another source address on their way out.
func (x fixed) masquerading() []nft.Rule {
	rules := []nft.Rule{
		// A pod that reached itself through a Service would answer itself directly.
		nft.Join(x.translated(true), x.source(), x.destination(), nft.InSet(x.client, x.sets.of[Hairpins]), nft.Masquerade()),
	}
	if x.program.Family == nft.IPv4 {
		// A node port on 127.0.0.1: no pod can answer to loopback.
		rules = append(rules, nft.Join(x.translated(true), x.source(), nft.InPrefix(x.client, x.scratch, loopback), nft.NotLeavesBy("lo"), nft.Masquerade()))
	}
	return append(rules,
		// From outside to a pod on another node: the answer must come back through here. A pod of this node keeps seeing the
		// client's address, because its answers pass here anyway.
		nft.Join(x.translated(true), x.fromOutside(), x.destination(), nft.NotInPrefix(x.addr, x.scratch, x.PodCIDR),
			nft.NotLeavesBy("lo"), nft.Masquerade()),
		// What enters the overlay with an address that is no pod's - a process that bound the node's address, a client that has
		// a route to pods by this node - would be answered beside the overlay.
		nft.Join(nft.LeavesBy(x.Overlay), x.fromOutside(), nft.Masquerade()),
		// From a pod to the world outside of the cluster, where pod addresses mean nothing.
		nft.Join(x.source(), nft.InPrefix(x.client, x.scratch, x.PodCIDR), x.destination(), nft.NotInPrefix(x.addr, x.scratch, x.ClusterCIDR),
			nft.NotInPrefix(x.addr, x.scratch, multicast(x.program.Family)), nft.Masquerade()))
}

// refusing returns the rules that answer connections nobody serves, so that clients fail at once instead of timing out.
func (x fixed) refusing() []nft.Rule {
	var rules []nft.Rule
	for _, addr := range x.Local {
		own := netip.PrefixFrom(addr, addr.BitLen())
		rules = append(rules, nft.Join(x.destination(), nft.InPrefix(x.addr, x.scratch, own), nft.Accept()))
	}
	// Whatever still has a Service address as its destination here met no Service, no port or no endpoint.
	return append(rules,
		nft.Join(x.newConnection(), x.destination(), nft.InPrefix(x.addr, x.scratch, x.ServiceCIDR), nft.Goto("reject")),
		nft.Join(x.newConnection(), x.frontend(), nft.InSet(x.addr, x.sets.of[Rejects]), nft.Goto("reject")))
}
