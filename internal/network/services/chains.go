package services

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Layout is what the fixed rules depend on.
type Layout struct {
	Table       string       // name of the nftables table
	Overlay     string       // name of the link to pods of other nodes; it need not exist
	PodCIDR     netip.Prefix // pods of this node
	ClusterCIDR netip.Prefix // pods of all nodes
	ServiceCIDR netip.Prefix
	Local       []netip.Addr // Service addresses that the node itself has, see [Node]
}

// chain is one chain of the fixed part of the table. A nil hook makes it a chain to jump to.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    []rule
}

var (
	loopback  = netip.MustParsePrefix("127.0.0.0/8")
	multicast = netip.MustParsePrefix("224.0.0.0/4")
)

// chains returns the fixed part of the table, called chains first.
func (l Layout) chains(s *sets) []chain {
	frontend := join(loadDestination(), loadPort())
	return []chain{
		{name: "reject", rules: []rule{
			join(protocolIs(TCP), rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}),
			{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpPortUnreachable}},
		}},
		{name: "services", rules: []rule{
			join(frontend, lookupVerdict(regAddr, s.of[Frontends])),
			join(frontend, lookupEndpoint(regAddr, s.of[HostPorts]), dnat()),
			join(toThisNode(), loadPort(), lookupVerdict(regProto, s.of[NodePorts])),
			join(toThisNode(), loadPort(), lookupEndpoint(regProto, s.of[AnyHostPorts]), dnat()),
		}},
		{name: "prerouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityNATDest, rules: []rule{
			join(l.fromOutside(), frontend, lookupVerdict(regAddr, s.of[OutsideFrontends])),
			join(l.fromOutside(), toThisNode(), loadPort(), lookupVerdict(regProto, s.of[OutsideNodePorts])),
			verdict(expr.VerdictJump, "services"),
		}},
		{name: "output", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityNATDest, rules: []rule{
			verdict(expr.VerdictJump, "services"),
		}},
		{name: "postrouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: nftables.ChainPriorityNATSource,
			rules: l.masquerading(s)},
		// Pod links, and with other nodes also the links to them, accept routed loopback addresses, so that a node port on
		// 127.0.0.1 works; nobody must use that to reach what listens on the node's loopback (CVE-2020-8558). No packet from
		// elsewhere has such an address (RFC 1122 section 3.2.1.3); answers get theirs after this hook.
		{name: "loopback", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityRaw, rules: []rule{
			join(interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo", false), loadDestination(), addrIn(regAddr, expr.CmpOpEq, loopback),
				verdict(expr.VerdictDrop, "")),
		}},
		{name: "filter-input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput, priority: nftables.ChainPriorityFilter, rules: []rule{
			join(newConnection(), translated(false), frontend, lookup(regAddr, s.of[Rejects]), verdict(expr.VerdictGoto, "reject")),
			join(newConnection(), translated(false), loadPort(), lookup(regProto, s.of[NodeRejects]), verdict(expr.VerdictGoto, "reject")),
		}},
		{name: "filter-forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, priority: nftables.ChainPriorityFilter, rules: l.refusing(s)},
		{name: "filter-output", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityFilter, rules: l.refusing(s)},
	}
}

const icmpPortUnreachable = 3 // RFC 792

// fromOutside matches clients that are no pods. Traffic of the node itself never passes prerouting on its way out.
func (l Layout) fromOutside() rule {
	return join(loadSource(), addrIn(regClient, expr.CmpOpNeq, l.ClusterCIDR))
}

// masquerading returns the rules that decide which connections get another source address on their way out.
func (l Layout) masquerading(s *sets) []rule {
	return []rule{
		// A pod that reached itself through a Service would answer itself directly.
		join(translated(true), loadSource(), loadDestination(), lookup(regClient, s.of[Hairpins]), masquerade()),
		// A node port on 127.0.0.1: no pod can answer to loopback.
		join(translated(true), loadSource(), addrIn(regClient, expr.CmpOpEq, loopback),
			interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "lo", false), masquerade()),
		// From outside to a pod on another node: the answer must come back through here. A pod of this node keeps seeing the
		// client's address, because its answers pass here anyway.
		join(translated(true), l.fromOutside(), loadDestination(), addrIn(regAddr, expr.CmpOpNeq, l.PodCIDR),
			interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "lo", false), masquerade()),
		// What enters the overlay with an address that is no pod's - a process that bound the node's address, a client that has
		// a route to pods by this node - would be answered beside the overlay.
		join(interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, l.Overlay, false), l.fromOutside(), masquerade()),
		// From a pod to the world outside of the cluster, where pod addresses mean nothing.
		join(loadSource(), addrIn(regClient, expr.CmpOpEq, l.PodCIDR), loadDestination(), addrIn(regAddr, expr.CmpOpNeq, l.ClusterCIDR),
			addrIn(regAddr, expr.CmpOpNeq, multicast), masquerade()),
	}
}

// refusing returns the rules that answer connections nobody serves, so that clients fail at once instead of timing out.
func (l Layout) refusing(s *sets) []rule {
	var rules []rule
	for _, addr := range l.Local {
		rules = append(rules, join(loadDestination(), addrIn(regAddr, expr.CmpOpEq, netip.PrefixFrom(addr, 32)), verdict(expr.VerdictAccept, "")))
	}
	// Whatever still has a Service address as its destination here met no Service, no port or no endpoint.
	return append(rules,
		join(newConnection(), loadDestination(), addrIn(regAddr, expr.CmpOpEq, l.ServiceCIDR), verdict(expr.VerdictGoto, "reject")),
		join(newConnection(), loadDestination(), loadPort(), lookup(regAddr, s.of[Rejects]), verdict(expr.VerdictGoto, "reject")))
}
