// Package nft writes one nftables table of one address family, in transactions that are data.
//
// What flows through it: a user of the table (packages services and guard) describes sets, chains, rules and elements
// in a [Transaction]; a [Conn] sends it to the kernel in one netlink batch, or a [Fake] applies it in memory, refuses what the kernel
// would refuse and shows the outcome as text. What must stay true: a transaction happens as a whole or not at all; no element is
// lost because there are many (one netlink attribute holds 65,535 bytes, and the kernel silently ignores the rest); nothing
// outside of the one table is touched; what is described here can be listed by the nft program. Tests:
// TestNoElementIsLostBecauseThereAreMany; TestNftListsEveryRule (internal/network/services).
package nft

import (
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// Family is the address family of a table.
type Family uint8

// The families. A cluster with both has a table of each.
const (
	IPv4 Family = iota
	IPv6
)

// FamilyOf returns the family of addr.
func FamilyOf(addr netip.Addr) Family {
	if addr.Is4() {
		return IPv4
	}
	return IPv6
}

// String returns the family as nft writes it.
func (f Family) String() string {
	if f == IPv6 {
		return "ip6"
	}
	return "ip"
}

// AddrType is the type of the family's addresses.
func (f Family) AddrType() Type {
	if f == IPv6 {
		return IPv6Addr
	}
	return IPv4Addr
}

func (f Family) netlink() nftables.TableFamily {
	if f == IPv6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// Table names a table.
type Table struct {
	Family Family
	Name   string
}

// Type is the type of one field of a key or value.
type Type uint8

// The types, named as nft does.
const (
	IPv4Addr Type = iota + 1
	IPv6Addr
	InetProto
	InetService
	Mark
)

var types = [...]nftables.SetDatatype{IPv4Addr: nftables.TypeIPAddr, IPv6Addr: nftables.TypeIP6Addr, InetProto: nftables.TypeInetProto,
	InetService: nftables.TypeInetService, Mark: nftables.TypeMark}

// Fields are the fields of a key or value side by side, as the kernel has them: each padded to 32 bits. The methods append.
type Fields []byte

// Addr appends an address of either family.
func (f Fields) Addr(a netip.Addr) Fields {
	if a.Is4() {
		b := a.As4()
		return append(f, b[:]...)
	}
	b := a.As16()
	return append(f, b[:]...)
}

// Protocol appends an IP protocol number.
func (f Fields) Protocol(p uint8) Fields { return append(f, p, 0, 0, 0) }

// Port appends a TCP, UDP or SCTP port.
func (f Fields) Port(p uint16) Fields { return append(f, byte(p>>8), byte(p), 0, 0) }

// Number appends a number in the byte order of the machine, the type being [Mark].
func (f Fields) Number(n uint32) Fields { return append(f, binaryutil.NativeEndian.PutUint32(n)...) }

// Set is a named set, map or verdict map.
type Set struct {
	Name     string
	Key      []Type
	Value    []Type // of a map
	Verdicts bool   // a verdict map: elements lead to a Verdict
	Dynamic  bool   // rules add elements
	Timeout  bool   // elements may expire
	Interval bool   // elements are the first ones of ranges, and those with End the first ones after them
	Counted  bool   // elements count the packets that they match
	Size     uint32 // most elements; 0 means no bound
}

// isMap reports whether elements have a value or verdict.
func (s *Set) isMap() bool { return s.Verdicts || len(s.Value) > 0 }

// Verdict is where a verdict map or rule leads. The zero Verdict is none.
type Verdict struct {
	Kind  expr.VerdictKind
	Chain string // of jump and goto
}

// Element is one element of a set or map.
type Element struct {
	Key     Fields
	Value   Fields   // in maps
	Verdict *Verdict // in verdict maps
	Timeout time.Duration
	End     bool   // in interval sets
	Packets uint64 // how many it has matched, in counted sets; only read
}

// Rule is a list of expressions, run until one does not match.
type Rule []expr.Any

// Join returns one rule of parts.
func Join(parts ...Rule) Rule {
	var out Rule
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// Hook makes a chain a base chain: the kernel calls it for the packets of the hook, in the order of priorities.
type Hook struct {
	Type     nftables.ChainType
	At       nftables.ChainHook
	Priority nftables.ChainPriority
}

// Chain is a chain with its rules.
type Chain struct {
	Name  string
	Hook  *Hook // nil for a chain to jump to
	Rules []Rule
}
