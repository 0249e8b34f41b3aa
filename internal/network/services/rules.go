package services

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The rules below are written for nftables' 32-bit registers, numbered from NFT_REG32_00 = 8. A packet's client, address,
// protocol, port and chosen slot always sit side by side, so that one load serves lookups by any run of neighbours.
const (
	regClient = 8 + iota
	regAddr
	regProto
	regPort
	regSlot
	regEndpoint     // address ...
	regEndpointPort // ... and port, as the maps store them
	regScratch
	// A copy of slot and endpoint, for remember.
	regSlotCopy
	regEndpointCopy
	regEndpointPortCopy
)

// rule is a list of expressions, run until one does not match.
type rule []expr.Any

func join(parts ...rule) rule {
	var out rule
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func loadSource() rule {
	return rule{&expr.Payload{DestRegister: regClient, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}}
}

func loadDestination() rule {
	return rule{&expr.Payload{DestRegister: regAddr, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}}
}

// loadPort loads protocol and destination port; TCP, UDP and SCTP have the port at the same place.
func loadPort() rule {
	return rule{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regProto},
		&expr.Payload{DestRegister: regPort, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// addrIn goes on if the address in reg is inside of prefix (or outside, with op CmpOpNeq).
func addrIn(reg uint32, op expr.CmpOp, prefix netip.Prefix) rule {
	addr := prefix.Masked().Addr().As4()
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], ^uint32(0)<<(32-prefix.Bits()))
	return rule{
		&expr.Bitwise{SourceRegister: reg, DestRegister: regScratch, Len: 4, Mask: mask[:], Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: regScratch, Data: addr[:]},
	}
}

func ctBits(key expr.CtKey, bits uint32, set bool) rule {
	op := expr.CmpOpEq
	if set {
		op = expr.CmpOpNeq
	}
	return rule{
		&expr.Ct{Register: regScratch, Key: key},
		&expr.Bitwise{SourceRegister: regScratch, DestRegister: regScratch, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: regScratch, Data: make([]byte, 4)},
	}
}

// newConnection matches the first packets of a connection; translated those whose destination was (or was not) changed by us.
func newConnection() rule      { return ctBits(expr.CtKeySTATE, expr.CtStateBitNEW, true) }
func translated(yes bool) rule { return ctBits(expr.CtKeySTATUS, ctStatusDNAT, yes) }
func lookup(reg uint32, s *nftables.Set) rule {
	return rule{&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID}}
}

// ctStatusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

// lookupVerdict goes where the verdict map says; a packet without an entry continues with the next rule.
func lookupVerdict(reg uint32, s *nftables.Set) rule {
	return rule{&expr.Lookup{SourceRegister: reg, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}}
}

// lookupEndpoint loads the endpoint that the map has for the key beginning at reg; without one the rule ends.
func lookupEndpoint(reg uint32, s *nftables.Set) rule {
	return rule{&expr.Lookup{SourceRegister: reg, DestRegister: regEndpoint, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}}
}

// dnat leads the connection to the loaded endpoint.
func dnat() rule {
	return rule{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regEndpoint, RegProtoMin: regEndpointPort}}
}

// masquerade gives the connection the address of the link it leaves by. Random ports: with sequential ones, two connections
// made at the same time can collide and lose their first packet.
func masquerade() rule { return rule{&expr.Masq{FullyRandom: true}} }

func verdict(kind expr.VerdictKind, chain string) rule {
	return rule{&expr.Verdict{Kind: kind, Chain: chain}}
}

func interfaceIs(key expr.MetaKey, op expr.CmpOp, name string, prefix bool) rule {
	data := []byte(name)
	if !prefix {
		data = append(data, make([]byte, unix.IFNAMSIZ-len(data))...)
	}
	return rule{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

// toThisNode matches packets to any address of the node.
func toThisNode() rule {
	return rule{
		&expr.Fib{Register: regScratch, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regScratch, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func protocolIs(p Protocol) rule {
	return rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regProto}, &expr.Cmp{Op: expr.CmpOpEq, Register: regProto, Data: []byte{byte(p)}}}
}

// choose loads a random slot of picker p.
func (p Picker) choose() rule {
	var first uint32
	if p.Outside {
		first = outsideSlots
	}
	return rule{&expr.Numgen{Register: regSlot, Modulus: p.N, Type: unix.NFT_NG_RANDOM, Offset: first}}
}

// remember stores in the affinity map that the client goes to the loaded endpoint, or renews that.
//
// What it stores is a copy, and made in this way so that nft can list the rule: version 1.0.6 (Debian 12) aborts where it
// would have to print the outcome of a map lookup as the data of an element. It follows a wide copy in its first register only,
// and so prints for the others what was there before: 0.0.0.0 . 0.
func (p Picker) remember(affinity *nftables.Set) rule {
	ones := []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}
	return rule{
		&expr.Immediate{Register: regEndpointCopy, Data: make([]byte, 4)},
		&expr.Immediate{Register: regEndpointPortCopy, Data: make([]byte, 2)},
		&expr.Bitwise{SourceRegister: regSlot, DestRegister: regSlotCopy, Len: 12, Mask: ones, Xor: make([]byte, 12)},
		&expr.Dynset{SrcRegKey: regClient, SrcRegData: regEndpointCopy, SetName: affinity.Name, SetID: affinity.ID,
			Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: time.Duration(p.Affinity) * time.Second},
	}
}

// rules returns the rules of picker p's chain.
func (p Picker) rules(sets *sets) []rule {
	load := join(loadDestination(), loadPort())
	find := lookupEndpoint(regAddr, sets.of[Endpoints])
	if p.NodePort {
		find = lookupEndpoint(regProto, sets.of[NodePortEndpoints])
	}
	if p.Affinity == 0 {
		return []rule{join(load, p.choose(), find, dnat())}
	}
	load = join(loadSource(), load)
	// remember copies the slot, so that it must hold something where none was chosen.
	noSlot := rule{&expr.Immediate{Register: regSlot, Data: make([]byte, 4)}}
	return []rule{
		join(load, noSlot, lookupEndpoint(regClient, sets.affinity), p.remember(sets.affinity), dnat()),
		join(load, p.choose(), find, p.remember(sets.affinity), dnat()),
	}
}
