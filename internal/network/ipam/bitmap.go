package ipam

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// bitmap marks used positions 0 <= i < n.
type bitmap struct {
	words []uint64
	n     int
}

func newBitmap(n int) bitmap { return bitmap{words: make([]uint64, (n+63)/64), n: n} }

func (b bitmap) set(i int)   { b.words[i/64] |= 1 << (i % 64) }
func (b bitmap) clear(i int) { b.words[i/64] &^= 1 << (i % 64) }

// free returns the first free position from start on, beginning again at 0 at the end.
func (b bitmap) free(start int) (int, bool) {
	if start >= b.n || start < 0 {
		start = 0
	}
	if i, ok := b.scan(start, b.n); ok {
		return i, true
	}
	return b.scan(0, start)
}

// scan returns the first free position in [from, to).
func (b bitmap) scan(from, to int) (int, bool) {
	for i := from; i < to; i = (i/64 + 1) * 64 {
		// Positions below i count as used.
		word := b.words[i/64] | (1<<(i%64) - 1)
		if word == ^uint64(0) {
			continue
		}
		if j := i/64*64 + bits.TrailingZeros64(^word); j < to {
			return j, true
		}
		return 0, false
	}
	return 0, false
}

// add returns the address i after a.
func add(a netip.Addr, i int) netip.Addr {
	if a.Is4() {
		b := a.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(i))
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	// A pool has at most 2^20 addresses and begins at a prefix boundary: the low 64 bits never overflow.
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+uint64(i))
	return netip.AddrFrom16(b)
}

// distance returns how many addresses b is after a, or -1 if that is more than a pool can have.
func distance(a, b netip.Addr) int {
	if a.Is4() {
		x, y := a.As4(), b.As4()
		return int(binary.BigEndian.Uint32(y[:])) - int(binary.BigEndian.Uint32(x[:]))
	}
	x, y := a.As16(), b.As16()
	d := binary.BigEndian.Uint64(y[8:]) - binary.BigEndian.Uint64(x[8:])
	if d > 1<<20 || [8]byte(x[:8]) != [8]byte(y[:8]) {
		return -1
	}
	return int(d)
}
