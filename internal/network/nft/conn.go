package nft

import (
	"errors"
	"fmt"
	"iter"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// Sizes in bytes: the largest transaction is the whole table of a big cluster, some 100 bytes an element; the kernel
// acknowledges each message.
const (
	sendBuffer    = 64 << 20
	receiveBuffer = 8 << 20
	// maxList is what one netlink attribute holds: its length, with the header of four bytes, is a 16-bit number.
	maxList = 1<<16 - 1 - 4
)

// Conn is a connection to the kernel for one table, in the network namespace it was opened in. It is not safe for concurrent use.
type Conn struct {
	table Table
	conn  *nftables.Conn
}

// Open opens a netlink socket for table.
func Open(table Table) (*Conn, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(sendBuffer), c.SetReadBuffer(receiveBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return &Conn{table: table, conn: conn}, nil
}

// Close closes the socket. The table stays.
func (c *Conn) Close() error { return c.conn.CloseLasting() }

// Run makes the changes of tx, all or none. Its errors wrap the kernel's: EEXIST, ENOENT, EBUSY, ENFILE.
func (c *Conn) Run(tx *Transaction) error {
	for _, s := range tx.Steps {
		if err := c.add(s); err != nil {
			return fmt.Errorf("encoding a change of nftables table %s: %w", c.table.Name, err)
		}
	}
	if err := c.conn.Flush(); err != nil {
		return fmt.Errorf("writing nftables table %s %s: %w", c.table.Family, c.table.Name, err)
	}
	return nil
}

// add appends the messages of one step to the batch.
func (c *Conn) add(s Step) error {
	table := c.netlinkTable()
	switch s.Kind {
	case AddTable:
		c.conn.AddTable(table)
	case DeleteTable:
		c.conn.DelTable(table)
	case AddSet:
		set, err := c.netlinkSet(s.Set)
		if err != nil {
			return err
		}
		return c.conn.AddSet(set, nil)
	case AddChain:
		c.addChain(s.Chain)
	case DeleteChain:
		chain := &nftables.Chain{Table: table, Name: s.Chain.Name}
		c.conn.FlushChain(chain)
		c.conn.DelChain(chain)
	case AddElements:
		return c.elements(s, c.conn.SetAddElements)
	case DeleteElements:
		return c.elements(s, c.conn.SetDeleteElements)
	case DeleteSet:
		c.conn.DelSet(&nftables.Set{Table: table, Name: s.Set.Name})
	}
	return nil
}

func (c *Conn) addChain(ch *Chain) {
	nc := &nftables.Chain{Table: c.netlinkTable(), Name: ch.Name}
	if ch.Hook != nil {
		nc.Type, nc.Hooknum, nc.Priority = ch.Hook.Type, &ch.Hook.At, &ch.Hook.Priority
	}
	nc = c.conn.AddChain(nc)
	for _, r := range ch.Rules {
		c.conn.AddRule(&nftables.Rule{Table: nc.Table, Chain: nc, Exprs: r})
	}
}

// elements writes the elements of s, in as many messages as they need.
func (c *Conn) elements(s Step, write func(*nftables.Set, []nftables.SetElement) error) error {
	set, err := c.netlinkSet(s.Set)
	if err != nil {
		return err
	}
	for part := range messages(s.Elements) {
		encoded := make([]nftables.SetElement, len(part))
		for i, e := range part {
			encoded[i] = nftables.SetElement{Key: alone(s.Set.Key, e.Key), Val: alone(s.Set.Value, e.Value), Timeout: e.Timeout, IntervalEnd: e.End}
			if e.Verdict != nil {
				encoded[i].VerdictData = &expr.Verdict{Kind: e.Verdict.Kind, Chain: e.Verdict.Chain}
			}
		}
		if err := write(set, encoded); err != nil {
			return fmt.Errorf("set %s: %w", set.Name, err)
		}
	}
	return nil
}

// alone returns data as the kernel wants it: a field that is the only one is not padded.
func alone(fields []Type, data Fields) []byte {
	if len(fields) != 1 {
		return data
	}
	return data[:min(len(data), int(types[fields[0]].Bytes))]
}

// padded undoes alone.
func padded(data []byte) Fields {
	return append(data, make([]byte, (4-len(data)%4)%4)...)
}

// messages divides elements into runs that fit into one netlink attribute each.
func messages(elements []Element) iter.Seq[[]Element] {
	return func(yield func([]Element) bool) {
		first, size := 0, 0
		for i := range elements {
			n := elements[i].wireSize()
			if size+n > maxList {
				if !yield(elements[first:i]) {
					return
				}
				first, size = i, 0
			}
			size += n
		}
		if first < len(elements) {
			yield(elements[first:])
		}
	}
}

// wireSize returns the size of e in a netlink message in bytes: every attribute has a header of four and is padded to four.
func (e *Element) wireSize() int {
	const header = 4
	attribute := func(n int) int { return header + (n+3)/4*4 }
	n := header + header + attribute(len(e.Key))
	if len(e.Value) > 0 {
		n += header + attribute(len(e.Value))
	}
	if e.Verdict != nil {
		n += header + header + attribute(4)
		if e.Verdict.Chain != "" {
			n += attribute(len(e.Verdict.Chain) + 1)
		}
	}
	if e.Timeout > 0 {
		n += attribute(8)
	}
	if e.End {
		n += attribute(4)
	}
	return n
}

func (c *Conn) netlinkTable() *nftables.Table {
	return &nftables.Table{Family: c.table.Family.netlink(), Name: c.table.Name}
}

// setID stands in for the number by which messages of one batch may name a set; the kernel finds all of ours by name.
const setID = 1

func (c *Conn) netlinkSet(s *Set) (*nftables.Set, error) {
	key, err := concat(s.Key)
	if err != nil {
		return nil, fmt.Errorf("set %s: key: %w", s.Name, err)
	}
	out := &nftables.Set{Table: c.netlinkTable(), ID: setID, Name: s.Name, KeyType: key, Concatenation: len(s.Key) > 1, IsMap: s.isMap(),
		Dynamic: s.Dynamic, HasTimeout: s.Timeout, Interval: s.Interval, Counter: s.Counted, Size: s.Size, DataType: nftables.TypeVerdict}
	if !s.Verdicts {
		if out.DataType, err = concat(s.Value); err != nil {
			return nil, fmt.Errorf("set %s: value: %w", s.Name, err)
		}
	}
	return out, nil
}

func concat(fields []Type) (nftables.SetDatatype, error) {
	switch len(fields) {
	case 0:
		return nftables.SetDatatype{}, nil
	case 1:
		return types[fields[0]], nil
	}
	parts := make([]nftables.SetDatatype, len(fields))
	for i, f := range fields {
		parts[i] = types[f]
	}
	return nftables.ConcatSetType(parts...)
}

// Exists reports whether the table is there, from an earlier run perhaps.
func (c *Conn) Exists() (bool, error) {
	names, err := tableNames(c.conn, c.table.Family)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if name == c.table.Name {
			return true, nil
		}
	}
	return false, nil
}

// Elements returns the elements of a set, with the time that is left to those that expire.
func (c *Conn) Elements(s *Set) ([]Element, error) {
	set, err := c.netlinkSet(s)
	if err != nil {
		return nil, err
	}
	elements, err := c.conn.GetSetElements(set)
	if err != nil {
		return nil, fmt.Errorf("reading nftables set %s: %w", s.Name, err)
	}
	out := make([]Element, len(elements))
	for i, e := range elements {
		out[i] = Element{Key: padded(e.Key), Value: padded(e.Val), Timeout: e.Expires, End: e.IntervalEnd}
		if e.Counter != nil {
			out[i].Packets = e.Counter.Packets
		}
		if e.VerdictData != nil {
			out[i].Verdict = &Verdict{Kind: e.VerdictData.Kind, Chain: e.VerdictData.Chain}
		}
	}
	return out, nil
}

// Tables returns the names of all tables of a family in this network namespace.
func Tables(f Family) ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return tableNames(conn, f)
}

func tableNames(conn *nftables.Conn, f Family) ([]string, error) {
	tables, err := conn.ListTablesOfFamily(f.netlink())
	if err != nil {
		return nil, fmt.Errorf("listing nftables tables: %w", err)
	}
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Name
	}
	return names, nil
}
