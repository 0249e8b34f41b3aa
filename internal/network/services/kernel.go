package services

import (
	"context"
	"errors"
	"io/fs"

	"github.com/google/nftables/expr"

	"github.com/knarr-io/knarr/internal/network/nft"
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
	layout  Layout
	writer  Writer
	program program
}

// NewKernel returns a kernel that writes the table which layout describes.
func NewKernel(layout Layout, w Writer) *Kernel {
	return &Kernel{layout: layout, writer: w, program: newProgram(layout.Family())}
}

// Family returns the family of the table.
func (k *Kernel) Family() nft.Family { return k.layout.Family() }

// Exists reports whether the table is there, from an earlier run perhaps.
func (k *Kernel) Exists() (bool, error) { return k.writer.Exists() }

// Watch calls deleted whenever somebody may have deleted the table, until ctx ends.
func (k *Kernel) Watch(ctx context.Context, deleted func()) error {
	return k.writer.Watch(ctx, deleted)
}

// sets are the maps and sets of the table.
type sets struct {
	of       [numSets]*nft.Set
	affinity *nft.Set
}

// affinitySize bounds the clients remembered at one time; later ones are balanced without affinity.
const affinitySize = 1 << 18

func newSets(f nft.Family) *sets {
	addr, proto, port, slot := f.AddrType(), nft.InetProto, nft.InetService, nft.Mark
	keys := [numSets][]nft.Type{
		Frontends: {addr, proto, port}, OutsideFrontends: {addr, proto, port}, NodePorts: {proto, port}, OutsideNodePorts: {proto, port},
		Endpoints: {addr, proto, port, slot}, NodePortEndpoints: {proto, port, slot},
		HostPorts: {addr, proto, port}, AnyHostPorts: {proto, port},
		Rejects: {addr, proto, port}, NodeRejects: {proto, port}, Hairpins: {addr, addr},
	}
	s := &sets{affinity: &nft.Set{Name: "affinity", Key: []nft.Type{addr, addr, proto, port}, Value: []nft.Type{addr, port},
		Dynamic: true, Timeout: true, Size: affinitySize}}
	for i := range s.of {
		set := &nft.Set{Name: Set(i).String(), Key: keys[i]}
		switch Set(i) {
		case Frontends, OutsideFrontends, NodePorts, OutsideNodePorts:
			set.Verdicts = true
		case Endpoints, NodePortEndpoints, HostPorts, AnyHostPorts:
			set.Value = []nft.Type{addr, port}
		}
		s.of[i] = set
	}
	return s
}

// Rewrite replaces the whole table, whatever its state, in one transaction: connections never see it half made.
func (k *Kernel) Rewrite(c Changes) error {
	var tx nft.Transaction
	remembered := k.expiring()
	tx.Replace()
	for _, s := range k.program.sets.of {
		tx.AddSet(s)
	}
	tx.AddSet(k.program.sets.affinity)
	for _, ch := range (fixed{k.layout, k.program}).chains() {
		tx.AddChain(ch)
	}
	tx.Add(k.program.sets.affinity, remembered...)
	k.program.changes(&tx, c)
	return k.writer.Run(&tx)
}

// Apply writes c in one transaction. After an error nothing is changed.
func (k *Kernel) Apply(c Changes) error {
	var tx nft.Transaction
	k.program.changes(&tx, c)
	return k.writer.Run(&tx)
}

// changes appends c to tx.
func (p program) changes(tx *nft.Transaction, c Changes) {
	for _, k := range c.AddPickers {
		tx.AddChain(nft.Chain{Name: k.Name(), Rules: p.picker(k)})
	}
	p.elements(c.Delete, tx.Delete)
	p.elements(c.Add, tx.Add)
	for _, k := range c.DeletePickers {
		tx.DeleteChain(k.Name())
	}
}

// elements hands elements, which are ordered by set, to to.
func (p program) elements(elements []Element, to func(*nft.Set, ...nft.Element)) {
	for len(elements) > 0 {
		set := elements[0].Set
		n := 0
		for n < len(elements) && elements[n].Set == set {
			n++
		}
		encoded := make([]nft.Element, n)
		for i, e := range elements[:n] {
			encoded[i] = e.encode()
		}
		to(p.sets.of[set], encoded...)
		elements = elements[n:]
	}
}

// encode returns e as the kernel has it.
func (e Element) encode() nft.Element {
	key := make(nft.Fields, 0, 48)
	switch e.Set {
	case Frontends, OutsideFrontends, Endpoints, HostPorts, Rejects:
		key = key.Addr(e.Key.Addr)
	case Hairpins:
		key = key.Addr(e.Key.Addr).Addr(e.Key.Addr)
	}
	if e.Set != Hairpins {
		key = key.Protocol(uint8(e.Proto)).Port(e.Key.Port)
	}
	if e.Set == Endpoints || e.Set == NodePortEndpoints {
		key = key.Number(e.Slot)
	}
	out := nft.Element{Key: key}
	switch {
	case e.Picker.Drop:
		out.Verdict = &nft.Verdict{Kind: expr.VerdictDrop}
	case !e.Picker.IsZero():
		out.Verdict = &nft.Verdict{Kind: expr.VerdictGoto, Chain: e.Picker.Name()}
	case e.Value.Addr.IsValid():
		out.Value = nft.Fields(nil).Addr(e.Value.Addr).Port(e.Value.Port)
	}
	return out
}

// isNotFound reports whether the kernel did not find what a netlink message named (ENOENT).
func isNotFound(err error) bool { return errors.Is(err, fs.ErrNotExist) }
