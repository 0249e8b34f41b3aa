package services

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Remembered is one client's endpoint, as the kernel learned it.
type Remembered struct {
	Client   netip.Addr
	Addr     netip.Addr // frontend
	Proto    Protocol
	Port     uint16
	Endpoint netip.AddrPort
}

// Stale returns those of remembered whose endpoint no longer belongs to its frontend. Picker chains ask the affinity map
// first, so that such clients would be led to an endpoint that is gone.
func (t *Table) Stale(remembered []Remembered) []Remembered {
	live := map[Key]map[netip.AddrPort]bool{}
	var out []Remembered
	for _, r := range remembered {
		front := Key{Set: Endpoints, Addr: r.Addr, Proto: r.Proto, Port: r.Port}
		if _, ok := t.kernel[Key{Set: Frontends, Addr: r.Addr, Proto: r.Proto, Port: r.Port}]; !ok {
			front = Key{Set: NodePortEndpoints, Proto: r.Proto, Port: r.Port}
		}
		if live[front] == nil {
			live[front] = t.endpoints(front)
		}
		if !live[front][r.Endpoint] {
			out = append(out, r)
		}
	}
	return out
}

// Affinity returns the clients that have an endpoint now.
func (k *Kernel) Affinity() ([]Remembered, error) {
	elements, err := k.writer.Elements(k.program.sets.affinity)
	if err != nil {
		return nil, fmt.Errorf("reading session affinity: %w", err)
	}
	out := make([]Remembered, 0, len(elements))
	for _, e := range elements {
		if r, ok := k.program.remembered(e); ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// remembered reads an element of the affinity map.
func (p program) remembered(e nft.Element) (Remembered, bool) {
	n := 4 * int(p.AddrRegisters())
	if len(e.Key) < 2*n+6 || len(e.Value) < n+2 {
		return Remembered{}, false
	}
	client, _ := netip.AddrFromSlice(e.Key[:n])
	addr, _ := netip.AddrFromSlice(e.Key[n : 2*n])
	endpoint, _ := netip.AddrFromSlice(e.Value[:n])
	return Remembered{Client: client, Addr: addr, Proto: Protocol(e.Key[2*n]), Port: binary.BigEndian.Uint16(e.Key[2*n+4:]),
		Endpoint: netip.AddrPortFrom(endpoint, binary.BigEndian.Uint16(e.Value[n:]))}, true
}

// Forget removes clients from the affinity map, each in a transaction of its own: one that expires meanwhile is no error and
// keeps none of the others.
func (k *Kernel) Forget(stale []Remembered) error {
	for _, r := range stale {
		var tx nft.Transaction
		tx.Delete(k.program.sets.affinity, nft.Element{Key: nft.Fields(nil).Addr(r.Client).Addr(r.Addr).Protocol(uint8(r.Proto)).Port(r.Port)})
		if err := k.writer.Run(&tx); err != nil && !isNotFound(err) {
			return fmt.Errorf("removing session affinity of %v: %w", r.Client, err)
		}
	}
	return nil
}

// expiring returns what the affinity map of an earlier table holds, to be kept in the new one.
func (k *Kernel) expiring() []nft.Element {
	elements, err := k.writer.Elements(k.program.sets.affinity)
	if err != nil {
		return nil // no such table or another layout: there is nothing to keep
	}
	var out []nft.Element
	for _, e := range elements {
		if e.Timeout > 0 {
			out = append(out, e)
		}
	}
	return out
}
