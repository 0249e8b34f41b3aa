package guard

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// program builds the rules of one family.
type program struct {
	nft.Family
	ways [policy.NumDirections]*nft.Set // address -> chain
	// guarded are the addresses of ways; each counts what was dropped.
	guarded [policy.NumDirections]*nft.Set
	selves  [policy.NumDirections]*nft.Set // address . address

	addr, proto, port nft.Register // side by side
	other             nft.Register // beside addr, for pairs
	scratch           nft.Register
}

func newProgram(f nft.Family) program {
	p := program{Family: f, addr: nft.FirstRegister + 1} // what loads an end of a connection takes the one before
	p.proto = p.addr + f.AddrRegisters()
	p.port = p.proto + 1
	p.other = p.addr + f.AddrRegisters()
	p.scratch = p.port + 1
	for d := range policy.NumDirections {
		p.ways[d] = &nft.Set{Name: d.String(), Key: []nft.Type{f.AddrType()}, Verdicts: true}
		p.guarded[d] = &nft.Set{Name: d.String() + "-guarded", Key: []nft.Type{f.AddrType()}, Counted: true}
		p.selves[d] = &nft.Set{Name: d.String() + "-selves", Key: []nft.Type{f.AddrType(), f.AddrType()}}
	}
	return p
}

// self loads the end of the connection that is guarded in a direction, peer the other one.
func (p program) self(d policy.Direction) nft.Rule {
	if d == policy.Egress {
		return p.LoadClient(p.addr, p.scratch)
	}
	return p.LoadServer(p.addr, p.scratch)
}

func (p program) peer(d policy.Direction) nft.Rule {
	if d == policy.Egress {
		return p.LoadServer(p.addr, p.scratch)
	}
	return p.LoadClient(p.addr, p.scratch)
}

// The priorities of the directions' chains: behind those of Services, which refuse what nobody serves.
const first = 10

func forward(d policy.Direction) *nft.Hook {
	return &nft.Hook{Type: nftables.ChainTypeFilter, At: *nftables.ChainHookForward, Priority: *nftables.ChainPriorityFilter + first + nftables.ChainPriority(d)}
}

// noConnection matches packets that belong to no connection that the tracker knows.
func (p program) noConnection() nft.Rule {
	return nft.ConntrackBits(expr.CtKeySTATE, expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED, true, p.addr)
}

// fixed appends what is there before any pod is guarded. Only what is forwarded is judged: traffic between a pod and the node on which it
// runs is always allowed (NetworkPolicy's API page), cluster DNS and probes included.
func (p program) fixed(tx *nft.Transaction) {
	for d := range policy.NumDirections {
		tx.AddSet(p.ways[d])
		tx.AddSet(p.guarded[d])
		tx.AddSet(p.selves[d])
	}
	for d := range policy.NumDirections {
		// What has no connection has no direction either: it is dropped where an end is guarded.
		stray := nft.Join(p.noConnection(), p.LoadDestination(p.addr))
		if d == policy.Egress {
			stray = nft.Join(p.noConnection(), p.LoadSource(p.addr))
		}
		tx.AddChain(nft.Chain{Name: "forward-" + d.String(), Hook: forward(d), Rules: []nft.Rule{
			nft.Join(stray, nft.InSet(p.addr, p.guarded[d]), nft.Drop()),
			// A pod cannot be kept from itself; by a Service it leaves and comes back.
			nft.Join(p.LoadSource(p.addr), p.LoadDestination(p.other), nft.InSet(p.addr, p.selves[d]), nft.Accept()),
			nft.Join(p.self(d), nft.GoWhere(p.addr, p.ways[d])),
			// What comes back was let pass by no policy. So is what a change of the table overtakes on its way: it may meet old rules with new
			// elements, or a new chain without its rules (the kernel notes the generation once a chain for rules, and once a lookup for
			// elements).
			nft.Join(p.self(d), nft.InSet(p.addr, p.guarded[d]), nft.Drop()),
		}})
	}
}

// chain returns c as the kernel has it.
func (p program) chain(c policy.Chain) nft.Chain {
	out := nft.Chain{Name: c.Name}
	for _, name := range c.Jumps {
		out.Rules = append(out.Rules, nft.Jump(name))
	}
	for _, r := range c.Rules {
		out.Rules = append(out.Rules, nft.Join(p.conditions(c.Direction, r), nft.Accept()))
	}
	return out
}

// conditions matches what r lets pass.
func (p program) conditions(d policy.Direction, r policy.Rule) nft.Rule {
	var out nft.Rule
	if r.Peers != "" {
		out = nft.Join(out, p.peer(d), nft.InSet(p.addr, &nft.Set{Name: r.Peers}))
	}
	if r.NamedPorts != "" {
		out = nft.Join(out, p.LoadServer(p.addr, p.scratch), p.portOf(), nft.InSet(p.addr, &nft.Set{Name: r.NamedPorts}))
	}
	if r.Ports != "" {
		out = nft.Join(out, p.portOf(), nft.InSet(p.proto, &nft.Set{Name: r.Ports}))
	}
	if r.Protocol != 0 {
		out = nft.Join(out, nft.LoadConnectionProtocol(p.proto), nft.Rule{&expr.Cmp{Op: expr.CmpOpEq, Register: p.proto, Data: []byte{byte(r.Protocol)}}})
	}
	if r.First != 0 {
		out = nft.Join(out, nft.LoadServerPort(p.port), nft.PortBetween(p.port, r.First, r.Last))
	}
	return out
}

// portOf loads protocol and port of the packet's connection.
func (p program) portOf() nft.Rule {
	return nft.Join(nft.LoadConnectionProtocol(p.proto), nft.LoadServerPort(p.port))
}
