package services

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Set names one map or set of the nftables table.
type Set uint8

// The sets. Their keys are the fields of [Key] that the comment names, in that order.
const (
	// Frontends: address . protocol . port -> picker or drop. Cluster IPs, external IPs, load balancer IPs.
	Frontends Set = iota
	// OutsideFrontends shadows Frontends for clients outside of the cluster (externalTrafficPolicy: Local).
	OutsideFrontends
	// NodePorts: protocol . port -> picker or drop, on every address of the node.
	NodePorts
	// OutsideNodePorts shadows NodePorts for clients outside of the cluster.
	OutsideNodePorts
	// Endpoints: address . protocol . port . slot -> endpoint address . port.
	Endpoints
	// NodePortEndpoints: protocol . port . slot -> endpoint address . port.
	NodePortEndpoints
	// HostPorts: address . protocol . port -> pod address . port; AnyHostPorts the same on every address of the node.
	HostPorts
	AnyHostPorts
	// Rejects: address . protocol . port, and NodeRejects: protocol . port, of Services that have no endpoint.
	Rejects
	NodeRejects
	// Hairpins: address . address, pods that may reach themselves through a Service and then need another source address.
	Hairpins

	numSets
)

var setNames = [numSets]string{"frontends", "outside-frontends", "node-ports", "outside-node-ports", "endpoints",
	"node-port-endpoints", "host-ports", "any-host-ports", "rejects", "node-rejects", "hairpins"}

func (s Set) String() string { return setNames[s] }

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols a Service port may have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "none"
}

// Key is the key of one set element. Fields that the set does not use are zero.
type Key struct {
	Set   Set
	Addr  netip.Addr
	Proto Protocol
	Port  uint16
	Slot  uint32
}

// Value is what a map element leads to: a picker, an endpoint, or nothing (the zero Value) for the elements of plain sets.
type Value struct {
	Picker Picker
	Addr   netip.Addr
	Port   uint16
}

// Element is one entry of a set or map.
type Element struct {
	Key
	Value
}

// Picker is the chain that chooses one of N endpoints of whatever frontend the packet came to. It is shared by all
// frontends with the same number of endpoints, so that a Service costs map elements only.
type Picker struct {
	N        uint32
	NodePort bool   // look in NodePortEndpoints rather than Endpoints
	Outside  bool   // choose from the slots of clients outside of the cluster
	Affinity uint32 // seconds a client stays with its endpoint; 0 means no affinity
	Drop     bool   // no endpoint, silently
}

// Family returns the family of the table that e is for: that of its addresses. An element without any fits both.
func (e Element) Family() (f nft.Family, ok bool) {
	for _, addr := range []netip.Addr{e.Key.Addr, e.Value.Addr} {
		if addr.IsValid() {
			return nft.FamilyOf(addr), true
		}
	}
	return 0, false
}

// outsideSlots is where the slots for clients outside of the cluster begin.
const outsideSlots = 1 << 24

// Name returns the picker's chain.
func (p Picker) Name() string {
	var b strings.Builder
	b.WriteString("pick")
	if p.NodePort {
		b.WriteString("-node-port")
	}
	if p.Outside {
		b.WriteString("-outside")
	}
	fmt.Fprintf(&b, "-%d", p.N)
	if p.Affinity > 0 {
		fmt.Fprintf(&b, "-sticky-%d", p.Affinity)
	}
	return b.String()
}

// IsZero reports whether p is no picker at all.
func (p Picker) IsZero() bool { return p == Picker{} }

// isChain reports whether p has a chain.
func (p Picker) isChain() bool { return p.N > 0 }

// String writes e as a line of a transcript: "frontends 10.96.0.1 tcp 443 -> pick-2".
func (e Element) String() string {
	var b strings.Builder
	b.WriteString(e.Set.String())
	if addr := e.Key.Addr; addr.IsValid() {
		fmt.Fprintf(&b, " %v", addr)
	}
	if e.Proto != 0 {
		fmt.Fprintf(&b, " %v %d", e.Proto, e.Key.Port)
	}
	switch {
	case e.Slot >= outsideSlots:
		fmt.Fprintf(&b, " outside slot %d", e.Slot-outsideSlots)
	case e.Set == Endpoints || e.Set == NodePortEndpoints:
		fmt.Fprintf(&b, " slot %d", e.Slot)
	}
	switch {
	case e.Picker.Drop:
		b.WriteString(" -> drop")
	case !e.Picker.IsZero():
		b.WriteString(" -> " + e.Picker.Name())
	case e.Value.Addr.IsValid():
		b.WriteString(" -> " + netip.AddrPortFrom(e.Value.Addr, e.Value.Port).String())
	}
	return b.String()
}

// compareKeys orders keys by set, address, protocol, port and slot.
func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Set, b.Set), a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto),
		cmp.Compare(a.Port, b.Port), cmp.Compare(a.Slot, b.Slot))
}

func sortElements(elements []Element) {
	slices.SortFunc(elements, func(a, b Element) int { return compareKeys(a.Key, b.Key) })
}
