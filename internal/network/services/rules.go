package services

import (
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// registers are where the rules of a family have a packet's client, address, protocol, port and chosen slot: side by side, so
// that one load serves lookups by any run of neighbours. IPv6 fills the sixteen registers there are.
type registers struct {
	client, addr, proto, port, slot nft.Register
	endpoint, endpointPort          nft.Register // as the maps store them
	scratch                         nft.Register // room for an address; conditions come before an endpoint is loaded
}

func registersOf(f nft.Family) registers {
	n := f.AddrRegisters()
	r := registers{client: nft.FirstRegister}
	r.addr = r.client + n
	r.proto = r.addr + n
	r.port = r.proto + 1
	r.slot = r.port + 1
	r.endpoint = r.slot + 1
	r.endpointPort = r.endpoint + n
	r.scratch = r.endpoint
	return r
}

// program builds the rules of one family.
type program struct {
	nft.Family
	registers
	sets *sets
}

func newProgram(f nft.Family) program {
	return program{Family: f, registers: registersOf(f), sets: newSets(f)}
}

func (p program) source() nft.Rule      { return p.LoadSource(p.client) }
func (p program) destination() nft.Rule { return p.LoadDestination(p.addr) }

// portOf loads protocol and destination port.
func (p program) portOf() nft.Rule { return nft.Join(nft.LoadProtocol(p.proto), nft.LoadPort(p.port)) }

// frontend loads address, protocol and port that a packet goes to.
func (p program) frontend() nft.Rule { return nft.Join(p.destination(), p.portOf()) }

// newConnection matches the first packets of a connection.
func (p program) newConnection() nft.Rule {
	return nft.ConntrackBits(expr.CtKeySTATE, expr.CtStateBitNEW, true, p.scratch)
}

// ctStatusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

// translated matches connections whose destination was (or was not) changed by us.
func (p program) translated(yes bool) nft.Rule {
	return nft.ConntrackBits(expr.CtKeySTATUS, ctStatusDNAT, yes, p.scratch)
}

// toEndpoint leads the connection to what the map has for the key that begins at a register.
func (p program) toEndpoint(key nft.Register, in Set) nft.Rule {
	return nft.Join(nft.LoadValue(key, p.endpoint, p.sets.of[in]), p.DestinationNAT(p.endpoint, p.endpointPort))
}

// choose loads a random slot of a picker.
func (p program) choose(k Picker) nft.Rule {
	var first uint32
	if k.Outside {
		first = outsideSlots
	}
	return nft.Rule{&expr.Numgen{Register: p.slot, Modulus: k.N, Type: unix.NFT_NG_RANDOM, Offset: first}}
}

// picker returns the rules of the chain of k.
func (p program) picker(k Picker) []nft.Rule {
	key, in := p.addr, Endpoints
	if k.NodePort {
		key, in = p.proto, NodePortEndpoints
	}
	if k.Affinity == 0 {
		return []nft.Rule{nft.Join(p.frontend(), p.choose(k), p.toEndpoint(key, in))}
	}
	load := nft.Join(p.source(), p.frontend())
	return []nft.Rule{
		nft.Join(load, p.known(), nft.LoadValue(p.client, p.endpoint, p.sets.affinity), p.remember(k)),
		nft.Join(load, p.known(), p.choose(k), nft.LoadValue(key, p.endpoint, p.sets.of[in]), p.remember(k)),
	}
}

// known loads something where no slot is chosen, and where an endpoint does not begin: remember copies it all, and nft looks for
// what was there.
func (p program) known() nft.Rule {
	rule := nft.Rule{zero(p.slot, 4)}
	for r := p.endpoint + 1; r <= p.endpointPort; r++ {
		rule = append(rule, zero(r, 4))
	}
	return rule
}

func zero(r nft.Register, bytes uint32) expr.Any {
	return &expr.Immediate{Register: r, Data: make([]byte, bytes)}
}

// remember stores in the affinity map that the client goes to the loaded endpoint, or renews that, and leads it there.
//
// What it stores is a copy, and made in this way so that nft can list the rule: version 1.0.6 (Debian 12) aborts where it
// would have to print the outcome of a map lookup as the data of an element. It follows a wide copy in its first register only,
// and so prints for the others what was there before: 0.0.0.0 . 0. For IPv6 there is no room for the copy beside the key: it
// takes the key's place, and the key is loaded again behind it.
func (p program) remember(k Picker) nft.Rule {
	at, endpoint, port := p.endpointPort+2, p.endpoint, p.endpointPort
	again := p
	if p.Family == nft.IPv6 {
		at = p.client
		again.client = at + p.endpointPort - p.slot + 1
		again.addr = again.client + p.AddrRegisters()
		again.proto = again.addr + p.AddrRegisters()
		again.port = again.proto + 1
		endpoint, port = at+1, at+1+p.AddrRegisters()
	}
	rule := nft.Join(nft.Rule{zero(at+1, 4*p.AddrRegisters()), zero(at+1+p.AddrRegisters(), 2)}, p.copyEndpoint(at))
	if p.Family == nft.IPv6 {
		rule = nft.Join(rule, again.source(), again.frontend())
	}
	return nft.Join(rule, nft.Rule{&expr.Dynset{SrcRegKey: again.client, SrcRegData: at + 1, SetName: p.sets.affinity.Name,
		Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: time.Duration(k.Affinity) * time.Second}}, p.DestinationNAT(endpoint, port))
}

// copyEndpoint copies slot, address and port to the registers from to on; the kernel copies four at a time.
func (p program) copyEndpoint(to nft.Register) nft.Rule {
	const most = 4
	var rule nft.Rule
	for from := p.slot; from <= p.endpointPort; from += most {
		bytes := 4 * min(most, p.endpointPort-from+1)
		ones := make([]byte, bytes)
		for i := range ones {
			ones[i] = 0xff
		}
		rule = append(rule, &expr.Bitwise{SourceRegister: from, DestRegister: to + from - p.slot, Len: bytes, Mask: ones, Xor: make([]byte, bytes)})
	}
	return rule
}
