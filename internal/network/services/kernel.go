package services

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// Kernel writes the nftables table of one instance in the network namespace it was opened in. It is not safe for concurrent use.
type Kernel struct {
	layout Layout
	conn   *nftables.Conn
	table  *nftables.Table
	sets   *sets
}

// sets are the maps and sets of the table. Their IDs only matter within one transaction.
type sets struct {
	of       [numSets]*nftables.Set
	affinity *nftables.Set
}

// Sizes in bytes: the largest transaction is the whole table of a big cluster, some 100 bytes an element; the kernel
// acknowledges each message.
const (
	sendBuffer    = 64 << 20
	receiveBuffer = 8 << 20
	// perMessage elements stay below the 64 KiB that a netlink attribute can hold.
	perMessage = 400
	// affinitySize bounds the clients remembered at one time; later ones are balanced without affinity.
	affinitySize = 1 << 18
)

// OpenKernel opens a netlink socket for the table that layout describes.
func OpenKernel(layout Layout) (*Kernel, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(sendBuffer), c.SetReadBuffer(receiveBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: layout.Table}
	s, err := newSets(table)
	if err != nil {
		return nil, errors.Join(err, conn.CloseLasting())
	}
	return &Kernel{layout: layout, conn: conn, table: table, sets: s}, nil
}

// Close closes the socket. The table stays: Services keep working while Knarr is away.
func (k *Kernel) Close() error { return k.conn.CloseLasting() }

func newSets(table *nftables.Table) (*sets, error) {
	addr, proto, port, slot := nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark
	keys := [numSets][]nftables.SetDatatype{
		Frontends: {addr, proto, port}, OutsideFrontends: {addr, proto, port}, NodePorts: {proto, port}, OutsideNodePorts: {proto, port},
		Endpoints: {addr, proto, port, slot}, NodePortEndpoints: {proto, port, slot},
		HostPorts: {addr, proto, port}, AnyHostPorts: {proto, port},
		Rejects: {addr, proto, port}, NodeRejects: {proto, port}, Hairpins: {addr, addr},
	}
	endpointType, err := nftables.ConcatSetType(addr, port)
	if err != nil {
		return nil, err
	}
	s := &sets{}
	for i := range s.of {
		key, err := nftables.ConcatSetType(keys[i]...)
		if err != nil {
			return nil, err
		}
		set := &nftables.Set{Table: table, ID: uint32(i + 1), Name: Set(i).String(), KeyType: key, Concatenation: true}
		switch Set(i) {
		case Frontends, OutsideFrontends, NodePorts, OutsideNodePorts:
			set.IsMap, set.DataType = true, nftables.TypeVerdict
		case Endpoints, NodePortEndpoints, HostPorts, AnyHostPorts:
			set.IsMap, set.DataType = true, endpointType
		}
		s.of[i] = set
	}
	clientKey, err := nftables.ConcatSetType(addr, addr, proto, port)
	if err != nil {
		return nil, err
	}
	s.affinity = &nftables.Set{Table: table, ID: uint32(numSets + 1), Name: "affinity", KeyType: clientKey, Concatenation: true,
		IsMap: true, DataType: endpointType, Dynamic: true, HasTimeout: true, Size: affinitySize}
	return s, nil
}

// Exists says whether the table is there, from an earlier run perhaps.
func (k *Kernel) Exists() (bool, error) {
	tables, err := k.conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("listing nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == k.table.Name {
			return true, nil
		}
	}
	return false, nil
}

// Rewrite replaces the whole table, whatever its state, in one transaction: connections never see it half made.
func (k *Kernel) Rewrite(c Changes) error {
	remembered := k.affinityElements()
	k.conn.AddTable(k.table) // so that deleting cannot fail
	k.conn.DelTable(k.table)
	k.conn.AddTable(k.table)
	for _, s := range append(k.sets.of[:], k.sets.affinity) {
		if err := k.conn.AddSet(s, nil); err != nil {
			return fmt.Errorf("nftables set %s: %w", s.Name, err)
		}
	}
	for _, ch := range k.layout.chains(k.sets) {
		k.addChain(ch)
	}
	if err := k.write(k.sets.affinity, remembered, k.conn.SetAddElements); err != nil {
		return err
	}
	return k.Apply(c)
}

// Apply writes c in one transaction, together with what Rewrite has begun. After an error nothing is changed.
func (k *Kernel) Apply(c Changes) error {
	for _, p := range c.AddPickers {
		k.addChain(chain{name: p.Name(), rules: p.rules(k.sets)})
	}
	if err := k.elements(c.Delete, k.conn.SetDeleteElements); err != nil {
		return err
	}
	if err := k.elements(c.Add, k.conn.SetAddElements); err != nil {
		return err
	}
	for _, p := range c.DeletePickers {
		k.conn.FlushChain(&nftables.Chain{Table: k.table, Name: p.Name()})
		k.conn.DelChain(&nftables.Chain{Table: k.table, Name: p.Name()})
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("writing nftables table %s: %w", k.table.Name, err)
	}
	return nil
}

// Remove deletes the table.
func (k *Kernel) Remove() error {
	k.conn.AddTable(k.table)
	k.conn.DelTable(k.table)
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("deleting nftables table %s: %w", k.table.Name, err)
	}
	return nil
}

func (k *Kernel) addChain(c chain) {
	nc := k.conn.AddChain(&nftables.Chain{Table: k.table, Name: c.name, Hooknum: c.hook, Priority: c.priority, Type: c.kind})
	for _, r := range c.rules {
		k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: nc, Exprs: r})
	}
}

type setWriter func(*nftables.Set, []nftables.SetElement) error

// elements writes elements, which are ordered by set.
func (k *Kernel) elements(elements []Element, write setWriter) error {
	for len(elements) > 0 {
		set := elements[0].Set
		n := 0
		for n < len(elements) && elements[n].Set == set {
			n++
		}
		encoded := make([]nftables.SetElement, n)
		for i, e := range elements[:n] {
			encoded[i] = e.encode()
		}
		if err := k.write(k.sets.of[set], encoded, write); err != nil {
			return err
		}
		elements = elements[n:]
	}
	return nil
}

func (k *Kernel) write(set *nftables.Set, elements []nftables.SetElement, write setWriter) error {
	for len(elements) > 0 {
		n := min(perMessage, len(elements))
		if err := write(set, elements[:n]); err != nil {
			return fmt.Errorf("nftables set %s: %w", set.Name, err)
		}
		elements = elements[n:]
	}
	return nil
}

// encode returns e as the kernel has it: each field of the key padded to 32 bits.
func (e Element) encode() nftables.SetElement {
	var key []byte
	addr := func(a netip.Addr) { b := a.As4(); key = append(key, b[:]...) }
	switch e.Set {
	case Frontends, OutsideFrontends, Endpoints, HostPorts, Rejects:
		addr(e.Key.Addr)
	case Hairpins:
		addr(e.Key.Addr)
		addr(e.Key.Addr)
	}
	if e.Set != Hairpins {
		key = append(key, byte(e.Proto), 0, 0, 0, byte(e.Key.Port>>8), byte(e.Key.Port), 0, 0)
	}
	if e.Set == Endpoints || e.Set == NodePortEndpoints {
		key = append(key, binaryutil.NativeEndian.PutUint32(e.Slot)...)
	}
	out := nftables.SetElement{Key: key}
	switch {
	case e.Picker.Drop:
		out.VerdictData = &expr.Verdict{Kind: expr.VerdictDrop}
	case !e.Picker.IsZero():
		out.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.Picker.Name()}
	case e.Value.Addr.IsValid():
		a := e.Value.Addr.As4()
		out.Val = append(a[:], byte(e.Value.Port>>8), byte(e.Value.Port), 0, 0)
	}
	return out
}
