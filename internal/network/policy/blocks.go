package policy

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Range is a run of addresses, both ends included.
type Range struct{ First, Last netip.Addr }

// rangesOf returns what blocks cover in a family, in order, without overlaps and neighbours: the kernel takes or refuses
// overlapping intervals by the order in which they come.
func rangesOf(blocks []*networkingv1.IPBlock, family nft.Family) []Range {
	var all []Range
	for _, b := range blocks {
		p, err := netip.ParsePrefix(b.CIDR)
		if err != nil || nft.FamilyOf(p.Addr()) != family {
			continue
		}
		left := []Range{prefixRange(p)}
		for _, except := range b.Except {
			if e, err := netip.ParsePrefix(except); err == nil && nft.FamilyOf(e.Addr()) == family {
				left = without(left, prefixRange(e))
			}
		}
		all = append(all, left...)
	}
	return merged(all)
}

// prefixRange returns the addresses of p.
func prefixRange(p netip.Prefix) Range {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < p.Addr().BitLen(); i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(last)
	return Range{p.Addr(), addr}
}

// without returns what of ranges is outside of hole.
func without(ranges []Range, hole Range) []Range {
	var out []Range
	for _, r := range ranges {
		if r.Last.Less(hole.First) || hole.Last.Less(r.First) {
			out = append(out, r)
			continue
		}
		if r.First.Less(hole.First) {
			out = append(out, Range{r.First, hole.First.Prev()})
		}
		if hole.Last.Less(r.Last) {
			out = append(out, Range{hole.Last.Next(), r.Last})
		}
	}
	return out
}

// merged joins ranges that overlap or touch.
func merged(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int { return a.First.Compare(b.First) })
	var out []Range
	for _, r := range ranges {
		if n := len(out); n > 0 {
			// After the last address there is none, and everything that follows begins before it.
			if next := out[n-1].Last.Next(); !next.IsValid() || !next.Less(r.First) {
				if out[n-1].Last.Less(r.Last) {
					out[n-1].Last = r.Last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}
