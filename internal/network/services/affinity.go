package services

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
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
	elements, err := k.conn.GetSetElements(k.sets.affinity)
	if err != nil {
		return nil, fmt.Errorf("reading session affinity: %w", err)
	}
	out := make([]Remembered, 0, len(elements))
	for _, e := range elements {
		if len(e.Key) < 14 || len(e.Val) < 6 {
			continue
		}
		out = append(out, Remembered{
			Client: addr4(e.Key), Addr: addr4(e.Key[4:]), Proto: Protocol(e.Key[8]), Port: binary.BigEndian.Uint16(e.Key[12:]),
			Endpoint: netip.AddrPortFrom(addr4(e.Val), binary.BigEndian.Uint16(e.Val[4:])),
		})
	}
	return out, nil
}

// Forget removes clients from the affinity map. One that expires meanwhile is no error.
func (k *Kernel) Forget(stale []Remembered) error {
	for _, r := range stale {
		client, addr := r.Client.As4(), r.Addr.As4()
		key := append(append(client[:], addr[:]...), byte(r.Proto), 0, 0, 0, byte(r.Port>>8), byte(r.Port), 0, 0)
		if err := k.conn.SetDeleteElements(k.sets.affinity, []nftables.SetElement{{Key: key}}); err != nil {
			return err
		}
		if err := k.conn.Flush(); err != nil && !isNotFound(err) {
			return fmt.Errorf("removing session affinity of %v: %w", r.Client, err)
		}
	}
	return nil
}

// affinityElements returns what the affinity map of an earlier table holds, to be kept in the new one.
func (k *Kernel) affinityElements() []nftables.SetElement {
	elements, err := k.conn.GetSetElements(k.sets.affinity)
	if err != nil {
		return nil // no such table or another layout: there is nothing to keep
	}
	var out []nftables.SetElement
	for _, e := range elements {
		if e.Expires > 0 {
			out = append(out, nftables.SetElement{Key: e.Key, Val: e.Val, Timeout: e.Expires})
		}
	}
	return out
}

func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b[:4])) }
