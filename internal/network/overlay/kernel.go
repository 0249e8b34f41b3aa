package overlay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// linkPrefix begins the name of the VXLAN link. It is not that of pod links: they have rules of their own.
const linkPrefix = "kvx"

// aliasPrefix marks the link as ours.
const aliasPrefix = "knarr-overlay/"

// LinkName returns the name of the instance's VXLAN link of a family.
func LinkName(instance string, f nft.Family) string {
	sum := sha256.Sum256([]byte(instance))
	name := linkPrefix + hex.EncodeToString(sum[:4])
	if f == nft.IPv6 {
		name += "v6"
	}
	return name
}

// af returns the kernel's number of a family.
func af(f nft.Family) int {
	if f == nft.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// newKernel returns what reads and writes what instance has of a family.
func newKernel(instance string, f nft.Family, protocol, priority int) *kernel {
	return &kernel{name: LinkName(instance, f), alias: aliasPrefix + instance, af: af(f), protocol: protocol, priority: priority}
}

// kernel reads and writes what an instance has in the network namespace of the calling thread.
type kernel struct {
	name, alias        string
	af                 int // AF_INET or AF_INET6
	protocol, priority int
	index              int // of the VXLAN link when it was last seen, or 0
}

// dump repeats a listing that the kernel could not give in one piece, because something changed meanwhile.
func dump[T any](list func() (T, error)) (out T, err error) {
	for range 5 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

// defaultMTU stands in where the machine's address is on loopback, which says nothing about the way out (Ethernet).
const defaultMTU = 1500

// FindUnderlay returns the link that has addr.
func FindUnderlay(addr netip.Addr) (Underlay, error) {
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, af(nft.FamilyOf(addr))) })
	if err != nil {
		return Underlay{}, fmt.Errorf("listing addresses: %w", err)
	}
	var under Underlay
	for _, a := range addrs {
		if a.IP.Equal(addr.AsSlice()) {
			under.Index = a.LinkIndex
		}
	}
	if under.Index == 0 {
		return Underlay{}, fmt.Errorf("node address %v is on no link of this machine", addr)
	}
	for _, a := range addrs {
		if a.LinkIndex == under.Index && !a.IP.IsLinkLocalUnicast() {
			under.OnLink = append(under.OnLink, prefixOf(a.IPNet).Masked())
		}
	}
	l, err := netlink.LinkByIndex(under.Index)
	if err != nil {
		return Underlay{}, fmt.Errorf("link of node address %v: %w", addr, err)
	}
	under.Name, under.MTU = l.Attrs().Name, l.Attrs().MTU
	if l.Attrs().Flags&net.FlagLoopback != 0 {
		under.MTU, under.OnLink = defaultMTU, nil
	}
	return under, nil
}

// link returns the VXLAN link, or nil.
func (k *kernel) link() (*netlink.Vxlan, error) {
	k.index = 0
	l, err := netlink.LinkByName(k.name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", k.name, err)
	}
	v, ok := l.(*netlink.Vxlan)
	if !ok || l.Attrs().Alias != k.alias {
		return nil, fmt.Errorf("link %s is not Knarr's: delete or rename it", k.name)
	}
	k.index = v.Index
	return v, nil
}

// observe returns what the kernel has.
func (k *kernel) observe(under Underlay) (State, error) {
	var s State
	v, err := k.link()
	if err != nil {
		return s, err
	}
	overlay := 0
	if v != nil {
		overlay = v.Index
		if err := s.readLink(v, k.af); err != nil {
			return s, fmt.Errorf("link %s: %w", k.name, err)
		}
	}
	routes, err := k.routes()
	for _, r := range routes {
		out := Route{Dst: prefixOf(r.Dst), Device: Elsewhere, Via: addrOf(r.Gw), Src: addrOf(r.Src)}
		switch {
		case r.Type == unix.RTN_UNREACHABLE:
			out.Device = Nowhere
		case overlay != 0 && r.LinkIndex == overlay:
			out.Device = OnOverlay
		case r.LinkIndex == under.Index:
			out.Device = OnUnderlay
		}
		s.Routes = append(s.Routes, out)
	}
	return s, err
}

// routes returns the instance's routes to pods. Its route to the Services on loopback is not one of them.
func (k *kernel) routes() ([]netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("lo: %w", err)
	}
	all, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(k.af, &netlink.Route{Protocol: netlink.RouteProtocol(k.protocol)}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var out []netlink.Route
	for _, r := range all {
		// IPv6 has unreachable routes on loopback.
		service := r.LinkIndex == lo.Attrs().Index && r.Type != unix.RTN_UNREACHABLE
		if r.Priority == k.priority && !service && r.Dst != nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// readLink reads the link and its entries.
func (s *State) readLink(v *netlink.Vxlan, af int) error {
	s.Link = &Link{VNI: v.VxlanId, Port: v.Port, Local: addrOf(v.SrcAddr), MTU: v.MTU, Up: v.Flags&net.FlagUp != 0}
	copy(s.Link.MAC[:], v.HardwareAddr)
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(v, af) })
	if err != nil {
		return err
	}
	addrs = slices.DeleteFunc(addrs, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() })
	if len(addrs) == 1 {
		s.Link.Addr = addrOf(addrs[0].IP)
	}
	for family, to := range map[int]*[]Tunnel{unix.AF_BRIDGE: &s.Forwards, af: &s.Neighbours} {
		entries, err := dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(v.Index, family) })
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.State&netlink.NUD_PERMANENT == 0 || len(e.HardwareAddr) != 6 || e.IP == nil || e.IP.IsUnspecified() || e.IP.IsMulticast() {
				continue // multicast, or what the kernel tried by itself
			}
			*to = append(*to, Tunnel{IP: addrOf(e.IP), MAC: MAC(e.HardwareAddr)})
		}
	}
	return nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func prefixOf(n *net.IPNet) netip.Prefix {
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), ones)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
