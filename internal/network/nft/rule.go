package nft

import (
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Register is one of the sixteen 32-bit registers, NFT_REG32_00 = 8 to NFT_REG32_15 = 23. A value that is longer takes
// those that follow as well, so that one load serves lookups by any run of neighbours.
type Register = uint32

// FirstRegister is the first one.
const FirstRegister Register = 8

// addrLen returns the length of the family's addresses in bytes.
func (f Family) addrLen() uint32 {
	if f == IPv6 {
		return 16
	}
	return 4
}

// AddrRegisters is how many registers an address takes.
func (f Family) AddrRegisters() Register { return f.addrLen() / 4 }

// Where the addresses are in the header (RFC 791 section 3.1, RFC 8200 section 3).
func (f Family) sourceOffset() uint32 {
	if f == IPv6 {
		return 8
	}
	return 12
}

// LoadSource loads the source address.
func (f Family) LoadSource(to Register) Rule {
	return Rule{&expr.Payload{DestRegister: to, Base: expr.PayloadBaseNetworkHeader, Offset: f.sourceOffset(), Len: f.addrLen()}}
}

// LoadDestination loads the destination address.
func (f Family) LoadDestination(to Register) Rule {
	return Rule{&expr.Payload{DestRegister: to, Base: expr.PayloadBaseNetworkHeader, Offset: f.sourceOffset() + f.addrLen(), Len: f.addrLen()}}
}

// LoadProtocol loads the transport protocol.
func LoadProtocol(to Register) Rule {
	return Rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: to}}
}

// LoadPort loads the destination port: TCP, UDP and SCTP have it at the same place.
func LoadPort(to Register) Rule {
	return Rule{&expr.Payload{DestRegister: to, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

// ProtocolIs matches one transport protocol.
func ProtocolIs(protocol uint8, scratch Register) Rule {
	return Join(LoadProtocol(scratch), Rule{&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: []byte{protocol}}})
}

// InPrefix matches an address in a register that is inside of prefix; scratch has room for an address.
func InPrefix(addr, scratch Register, prefix netip.Prefix) Rule {
	return compareMasked(addr, scratch, expr.CmpOpEq, prefix)
}

// NotInPrefix matches an address in a register that is outside of prefix.
func NotInPrefix(addr, scratch Register, prefix netip.Prefix) Rule {
	return compareMasked(addr, scratch, expr.CmpOpNeq, prefix)
}

func compareMasked(addr, scratch Register, op expr.CmpOp, prefix netip.Prefix) Rule {
	data := prefix.Masked().Addr().AsSlice()
	mask := make([]byte, len(data))
	for i := range prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return Rule{
		&expr.Bitwise{SourceRegister: addr, DestRegister: scratch, Len: uint32(len(data)), Mask: mask, Xor: make([]byte, len(data))},
		&expr.Cmp{Op: op, Register: scratch, Data: data},
	}
}

// ConntrackBits matches packets for whose connection any (or, with set false, none) of bits is set in key.
func ConntrackBits(key expr.CtKey, bits uint32, set bool, scratch Register) Rule {
	op := expr.CmpOpEq
	if set {
		op = expr.CmpOpNeq
	}
	return Rule{
		&expr.Ct{Register: scratch, Key: key},
		&expr.Bitwise{SourceRegister: scratch, DestRegister: scratch, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: scratch, Data: make([]byte, 4)},
	}
}

// What follows reads a packet's connection, whichever way the packet goes: who began it, as it was before its source was translated, and
// whom it reached, as it is after its destination was.

// LoadClient loads the address of who began the packet's connection; see connectionEnd for scratch.
func (f Family) LoadClient(to, scratch Register) Rule {
	return f.connectionEnd(original, to, scratch)
}

// LoadServer loads the address that the packet's connection reached; see connectionEnd for scratch.
func (f Family) LoadServer(to, scratch Register) Rule { return f.connectionEnd(reply, to, scratch) }

// LoadServerPort loads the port that the packet's connection reached.
func LoadServerPort(to Register) Rule {
	return Rule{&expr.Ct{Register: to, Key: expr.CtKeyPROTOSRC, Direction: reply}}
}

// LoadConnectionProtocol loads the protocol of the packet's connection: of an ICMP error, that of what it is about.
func LoadConnectionProtocol(to Register) Rule {
	return Rule{&expr.Ct{Register: to, Key: expr.CtKeyPROTOCOL}}
}

// The directions of a connection's packets, enum ip_conntrack_dir of linux/netfilter/nf_conntrack_tuple_common.h: one byte to the kernel, of
// which the library writes four, the lowest last.
const (
	original = 0 << 24
	reply    = 1 << 24
)

// connectionEnd loads the source of a direction's packets. scratch has room for an address and one more, and the register before to is
// overwritten. The address comes there by a copy that begins one register before: version 1.0.6 of nft does not know how long such an
// address is and aborts where it would have to list that a set is asked for it. It follows a copy in its first register only, and so
// prints for the address what was there before, 0x0 [invalid type].
func (f Family) connectionEnd(direction uint32, to, scratch Register) Rule {
	const most = 4 // registers that the kernel copies at a time
	zero := func(r Register, bytes uint32) expr.Any {
		return &expr.Immediate{Register: r, Data: make([]byte, bytes)}
	}
	all := f.AddrRegisters() + 1
	rule := Rule{zero(to, f.addrLen()), zero(scratch, 4)}
	if all > most {
		rule = append(rule, zero(scratch+most, 4)) // the rest of the address, of which it knows nothing
	}
	rule = append(rule, &expr.Ct{Register: scratch + 1, Key: expr.CtKeySRC, Direction: direction})
	for from := Register(0); from < all; from += most {
		bytes := 4 * min(most, all-from)
		ones := make([]byte, bytes)
		for i := range ones {
			ones[i] = 0xff
		}
		rule = append(rule, &expr.Bitwise{SourceRegister: scratch + from, DestRegister: to - 1 + from, Len: bytes, Mask: ones, Xor: make([]byte, bytes)})
	}
	return rule
}

// PortBetween matches a port in a register from first to last.
func PortBetween(port Register, first, last uint16) Rule {
	if first == last {
		return Rule{&expr.Cmp{Op: expr.CmpOpEq, Register: port, Data: binaryutil.BigEndian.PutUint16(first)}}
	}
	return Rule{&expr.Cmp{Op: expr.CmpOpGte, Register: port, Data: binaryutil.BigEndian.PutUint16(first)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: port, Data: binaryutil.BigEndian.PutUint16(last)}}
}

// ToThisNode matches packets to any address of the machine.
func ToThisNode(scratch Register) Rule {
	return Rule{
		&expr.Fib{Register: scratch, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// NotComesBy matches packets that do not come in by the link of that name.
func NotComesBy(link string) Rule { return interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, link) }

// LeavesBy matches packets that go out by the link of that name; NotLeavesBy those that do not.
func LeavesBy(link string) Rule    { return interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, link) }
func NotLeavesBy(link string) Rule { return interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, link) }

func interfaceIs(key expr.MetaKey, op expr.CmpOp, name string) Rule {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return Rule{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

// InSet matches if the set has the key that begins at a register.
func InSet(key Register, s *Set) Rule {
	return Rule{&expr.Lookup{SourceRegister: key, SetName: s.Name}}
}

// GoWhere goes where the verdict map says for the key that begins at a register; without an element, on to the next rule.
func GoWhere(key Register, s *Set) Rule {
	return Rule{&expr.Lookup{SourceRegister: key, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: s.Name}}
}

// LoadValue loads what the map has for the key that begins at a register; without an element, on to the next rule.
func LoadValue(key, to Register, s *Set) Rule {
	return Rule{&expr.Lookup{SourceRegister: key, DestRegister: to, IsDestRegSet: true, SetName: s.Name}}
}

// DestinationNAT leads the connection to the address and port in registers.
func (f Family) DestinationNAT(addr, port Register) Rule {
	return Rule{&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.netlink()), RegAddrMin: addr, RegProtoMin: port}}
}

// Masquerade gives the connection the address of the link it leaves by. Random ports: with sequential ones, two connections
// made at the same time can collide and lose their first packet.
func Masquerade() Rule { return Rule{&expr.Masq{FullyRandom: true}} }

// Accept, Drop, Jump and Goto end a rule.
func Accept() Rule           { return Rule{&expr.Verdict{Kind: expr.VerdictAccept}} }
func Drop() Rule             { return Rule{&expr.Verdict{Kind: expr.VerdictDrop}} }
func Jump(chain string) Rule { return Rule{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }
func Goto(chain string) Rule { return Rule{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}} }

// Refuse answers with the ICMP message "port unreachable".
func (f Family) Refuse() Rule {
	code := uint8(3) // RFC 792
	if f == IPv6 {
		code = 4 // RFC 4443 section 3.1
	}
	return Rule{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}
}

// Reset answers a TCP packet with a reset.
func Reset() Rule { return Rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }
