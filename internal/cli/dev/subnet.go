package dev

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
)

// planSubnet chooses a /24 of 10.77.0.0/16 that overlaps with nothing that is taken. Where it begins to look depends on the cluster, so
// that several rarely want the same one.
func planSubnet(seed string, taken []netip.Prefix) (netip.Prefix, error) {
	h := fnv.New32a()
	h.Write([]byte(seed)) // never fails
	first := h.Sum32()
	for i := range uint32(256) {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(first + i), 0}), 24)
		if overlapping(p, taken) == (netip.Prefix{}) {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("this machine has routes to all of 10.77.0.0/16: choose the nodes' addresses with --subnet")
}

// overlapping returns the one of taken that overlaps with p.
func overlapping(p netip.Prefix, taken []netip.Prefix) netip.Prefix {
	for _, t := range taken {
		if t.Overlaps(p) {
			return t
		}
	}
	return netip.Prefix{}
}

// chooseSubnet gives a new cluster its addresses, or checks that those it has are not used otherwise.
func (c *Cluster) chooseSubnet(wanted string) error {
	taken, err := c.takenPrefixes()
	if err != nil {
		return err
	}
	switch {
	case wanted != "":
		p, err := netip.ParsePrefix(wanted)
		if err != nil || !p.Addr().Is4() || p.Bits() != 24 {
			return fmt.Errorf("--subnet %q: want an IPv4 /24, such as 10.77.1.0/24", wanted)
		}
		if c.Subnet.IsValid() && c.Subnet != p.Masked() {
			return fmt.Errorf("--subnet %v: the cluster has %v, and machines keep their addresses (knarr dev down --delete-data ends it)", p, c.Subnet)
		}
		c.Subnet = p.Masked()
	case !c.Subnet.IsValid():
		if c.Subnet, err = planSubnet(c.dir, taken); err != nil {
			return err
		}
	}
	if t := overlapping(c.Subnet, taken); t.IsValid() {
		return fmt.Errorf("the nodes' addresses %v collide with %v, to which this machine has a route or which the cluster's pods or Services have: "+
			"free it, or choose others for a new cluster with --subnet", c.Subnet, t)
	}
	return nil
}

// takenPrefixes are the networks to which the machine has routes and those that the cluster has inside. What leads to the cluster itself is left out.
func (c *Cluster) takenPrefixes() (out []netip.Prefix, err error) {
	own := 0
	if l, err := netlink.LinkByName(c.hostLink()); err == nil {
		own = l.Attrs().Index
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
	if err != nil {
		return nil, fmt.Errorf("this machine's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.LinkIndex == own && own != 0 {
			continue
		}
		bits, _ := r.Dst.Mask.Size()
		if a, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok && bits > 0 {
			out = append(out, netip.PrefixFrom(a, bits))
		}
	}
	out = append(out, netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")) // knarr server's defaults
	for _, a := range c.ServerArgs {
		if _, v, ok := strings.Cut(a, "="); ok {
			a = v
		}
		if p, err := netip.ParsePrefix(a); err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}
