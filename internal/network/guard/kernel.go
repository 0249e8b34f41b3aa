package guard

import (
	"context"
	"net/netip"

	"github.com/google/nftables/expr"

	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// Writer is the nftables table that a Kernel writes to: an nft.Conn, or one in memory in tests.
type Writer interface {
	Run(*nft.Transaction) error
	Exists() (bool, error)
	Elements(*nft.Set) ([]nft.Element, error)
	Watch(ctx context.Context, deleted func()) error
}

// Kernel writes the table of one instance and family. It is not safe for concurrent use.
type Kernel struct {
	writer  Writer
	program program
}

// NewKernel returns a kernel that writes a table of that family.
func NewKernel(family nft.Family, w Writer) *Kernel {
	return &Kernel{writer: w, program: newProgram(family)}
}

// Family returns the family of the table.
func (k *Kernel) Family() nft.Family { return k.program.Family }

// Exists reports whether the table is there, from an earlier run perhaps.
func (k *Kernel) Exists() (bool, error) { return k.writer.Exists() }

// Watch calls deleted whenever somebody may have deleted the table, until ctx ends.
func (k *Kernel) Watch(ctx context.Context, deleted func()) error {
	return k.writer.Watch(ctx, deleted)
}

// Rewrite replaces the whole table, whatever its state, in one transaction: no packet meets a table that is half made.
func (k *Kernel) Rewrite(c policy.Changes) error {
	var tx nft.Transaction
	tx.Replace()
	k.program.fixed(&tx)
	k.program.changes(&tx, c)
	return k.writer.Run(&tx)
}

// Apply writes c in one transaction. After an error nothing is changed.
func (k *Kernel) Apply(c policy.Changes) error {
	var tx nft.Transaction
	k.program.changes(&tx, c)
	return k.writer.Run(&tx)
}

// Remove deletes the table.
func (k *Kernel) Remove() error {
	var tx nft.Transaction
	tx.Remove()
	return k.writer.Run(&tx)
}

// Dropped returns how many packets were dropped in a direction, by address of the pod that policies guard.
func (k *Kernel) Dropped(d policy.Direction) (map[netip.Addr]uint64, error) {
	elements, err := k.writer.Elements(k.program.guarded[d])
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]uint64{}
	for _, e := range elements {
		if addr, ok := netip.AddrFromSlice(e.Key); ok {
			out[addr] = e.Packets
		}
	}
	return out, nil
}

// changes appends c to tx.
func (p program) changes(tx *nft.Transaction, c policy.Changes) {
	for _, s := range c.AddSets {
		set := p.set(s)
		tx.AddSet(set)
		tx.Add(set, p.elements(s)...)
	}
	for _, ch := range c.AddChains {
		tx.AddChain(p.chain(ch))
	}
	p.guards(c.DeleteGuards, c.AddGuards, tx.Delete)
	p.guards(c.AddGuards, c.DeleteGuards, tx.Add)
	for _, s := range c.Delete {
		tx.Delete(p.set(s), p.elements(s)...)
	}
	for _, s := range c.Add {
		tx.Add(p.set(s), p.elements(s)...)
	}
	for _, name := range c.DeleteChains {
		tx.DeleteChain(name)
	}
	for _, s := range c.DeleteSets {
		tx.DeleteSet(p.set(s))
	}
}

// guards hands guards to to: where the direction's map leads from an address and, unless the address is among the others too and only
// its chain is another, that it is guarded.
func (p program) guards(guards, others []policy.Guard, to func(*nft.Set, ...nft.Element)) {
	for d := range policy.NumDirections {
		var ways, guarded, selves []nft.Element
		stay := map[netip.Addr]bool{}
		for _, o := range others {
			stay[o.Addr] = stay[o.Addr] || o.Direction == d
		}
		for _, g := range guards {
			if g.Direction != d {
				continue
			}
			addr := nft.Fields(nil).Addr(g.Addr)
			ways = append(ways, nft.Element{Key: addr, Verdict: &nft.Verdict{Kind: expr.VerdictJump, Chain: g.Chain}})
			if !stay[g.Addr] {
				guarded = append(guarded, nft.Element{Key: addr})
				selves = append(selves, nft.Element{Key: nft.Fields(nil).Addr(g.Addr).Addr(g.Addr)})
			}
		}
		to(p.ways[d], ways...)
		to(p.guarded[d], guarded...)
		to(p.selves[d], selves...)
	}
}

// set returns s as the kernel has it.
func (p program) set(s policy.Set) *nft.Set {
	addr := p.AddrType()
	set := &nft.Set{Name: s.Name}
	switch s.Kind {
	case policy.Addresses:
		set.Key = []nft.Type{addr}
	case policy.NamedPorts:
		set.Key = []nft.Type{addr, nft.InetProto, nft.InetService}
	case policy.Ranges:
		set.Key, set.Interval = []nft.Type{addr}, true
	case policy.PortNumbers:
		set.Key = []nft.Type{nft.InetProto, nft.InetService}
	}
	return set
}

// elements returns the elements of s as the kernel has them.
func (p program) elements(s policy.Set) []nft.Element {
	var out []nft.Element
	for _, e := range s.Elements {
		var key nft.Fields
		if s.Kind != policy.PortNumbers {
			key = key.Addr(e.Addr)
		}
		if s.Kind != policy.Addresses {
			key = key.Protocol(uint8(e.Protocol)).Port(e.Port)
		}
		out = append(out, nft.Element{Key: key})
	}
	for _, r := range s.Ranges {
		out = append(out, nft.Element{Key: nft.Fields(nil).Addr(r.First)})
		if next := r.Last.Next(); next.IsValid() { // a range up to the last address has no end
			out = append(out, nft.Element{Key: nft.Fields(nil).Addr(next), End: true})
		}
	}
	return out
}
