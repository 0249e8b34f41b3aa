package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// apply takes the steps in changes.
func (k *kernel) apply(under Underlay, c Changes) error {
	if c.DeleteFirst {
		if err := k.deleteLink(); err != nil {
			return err
		}
	}
	index := map[Device]int{OnUnderlay: under.Index}
	if l := c.Make; l != nil {
		if err := k.makeLink(*l); err != nil {
			return err
		}
		c.Adjust = l
	}
	v, err := k.link()
	if err != nil {
		return err
	}
	if v != nil {
		index[OnOverlay] = v.Index
		if err := k.applyLink(v, c); err != nil {
			return err
		}
	}
	for _, r := range c.SetRoutes {
		if err := netlink.RouteReplace(k.route(r, index)); err != nil {
			return fmt.Errorf("route to %v by %v: %w", r.Dst, r.Via, err)
		}
	}
	for _, r := range c.DeleteRoutes {
		err := netlink.RouteDel(&netlink.Route{Dst: ipNet(r.Dst), Priority: k.priority, Protocol: netlink.RouteProtocol(k.protocol), Type: k.routeType(r)})
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("deleting the route to %v: %w", r.Dst, err)
		}
	}
	if v != nil {
		for _, n := range append(entries(v.Index, unix.AF_BRIDGE, c.DeleteForwards), entries(v.Index, k.af, c.DeleteNeighbours)...) {
			if err := netlink.NeighDel(n); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("deleting the entry of %v on link %s: %w", n.IP, k.name, err)
			}
		}
	}
	if c.DeleteLast {
		return k.deleteLink()
	}
	return nil
}

// applyLink sets up the link and adds its entries.
func (k *kernel) applyLink(v *netlink.Vxlan, c Changes) error {
	if c.Adjust != nil {
		if err := k.adjust(v, *c.Adjust); err != nil {
			return fmt.Errorf("link %s: %w", k.name, err)
		}
	}
	for _, n := range append(entries(v.Index, unix.AF_BRIDGE, c.SetForwards), entries(v.Index, k.af, c.SetNeighbours)...) {
		if err := netlink.NeighSet(n); err != nil {
			return fmt.Errorf("entry of %v on link %s: %w", n.IP, k.name, err)
		}
	}
	return nil
}

// makeLink makes the link, without learning: all entries come from Nodes.
func (k *kernel) makeLink(l Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = k.name, l.MTU, l.MAC[:]
	v := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: l.VNI, SrcAddr: l.Local.AsSlice(), Port: l.Port, Learning: false}
	if err := netlink.LinkAdd(v); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("making link %s: another VXLAN link of this machine has VNI %d and UDP port %d: %w", k.name, l.VNI, l.Port, err)
		}
		return fmt.Errorf("making link %s: %w", k.name, err)
	}
	made, err := netlink.LinkByName(k.name)
	if err == nil {
		err = netlink.LinkSetAlias(made, k.alias)
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", k.name, err)
	}
	return nil
}

// adjust sets what may change of a link.
func (k *kernel) adjust(v *netlink.Vxlan, l Link) error {
	disable := "1"
	if k.af == unix.AF_INET6 {
		disable = "0"
	}
	for _, s := range []struct{ key, value string }{
		// A machine may reach us by VXLAN that we reach by plain routes, while Nodes change; "all" may be strict.
		{"ipv4/conf/" + k.name + "/rp_filter", "2"},
		{"ipv4/conf/" + k.name + "/route_localnet", "1"}, // as on pod links
		{"ipv4/conf/" + k.name + "/accept_redirects", "0"},
		{"ipv4/conf/" + k.name + "/send_redirects", "0"},
		{"ipv6/conf/" + k.name + "/disable_ipv6", disable},
	} {
		if err := os.WriteFile("/proc/sys/net/"+s.key, []byte(s.value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("sysctl net/%s: %w", s.key, err)
		}
	}
	if v.MTU != l.MTU {
		if err := netlink.LinkSetMTU(v, l.MTU); err != nil {
			return fmt.Errorf("MTU %d: %w", l.MTU, err)
		}
	}
	addrs, err := netlink.AddrList(v, k.af)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if addrOf(a.IP) != l.Addr && !a.IP.IsLinkLocalUnicast() {
			if err := netlink.AddrDel(v, &a); err != nil {
				return fmt.Errorf("removing address %v: %w", a.IPNet, err)
			}
		}
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(l.Addr, l.Addr.BitLen()))}
	if l.Addr.Is6() {
		addr.Flags = unix.IFA_F_NODAD // routes with this source are made at once
	}
	if err := netlink.AddrReplace(v, addr); err != nil {
		return fmt.Errorf("address %v: %w", l.Addr, err)
	}
	return netlink.LinkSetUp(v)
}

func (k *kernel) deleteLink() error {
	v, err := k.link()
	if err != nil || v == nil {
		return err
	}
	if err := netlink.LinkDel(v); err != nil {
		return fmt.Errorf("deleting link %s: %w", k.name, err)
	}
	return nil
}

func (k *kernel) routeType(r Route) int {
	if r.Device == Nowhere {
		return unix.RTN_UNREACHABLE
	}
	return unix.RTN_UNICAST
}

func (k *kernel) route(r Route, index map[Device]int) *netlink.Route {
	out := &netlink.Route{Dst: ipNet(r.Dst), LinkIndex: index[r.Device], Type: k.routeType(r),
		Protocol: netlink.RouteProtocol(k.protocol), Priority: k.priority}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	}
	if r.Src.IsValid() {
		out.Src = r.Src.AsSlice()
	}
	if r.Device == OnOverlay {
		out.Flags = int(netlink.FLAG_ONLINK) // the peer's address is on no prefix of the link
	}
	return out
}

// Purge removes the instance's links and routes in this network namespace.
func Purge(instance string, protocol, priority int) error {
	var errs []error
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		k := newKernel(instance, f, protocol, priority)
		routes, err := k.routes()
		errs = append(errs, err)
		for _, r := range routes {
			if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("deleting the route to %v: %w", r.Dst, err))
			}
		}
		errs = append(errs, k.deleteLink())
	}
	return errors.Join(errs...)
}

// entries returns forwarding (AF_BRIDGE) or neighbour (AF_INET, AF_INET6) entries of the link.
func entries(link, family int, tunnels []Tunnel) []*netlink.Neigh {
	var out []*netlink.Neigh
	for _, t := range tunnels {
		n := &netlink.Neigh{LinkIndex: link, Family: family, State: netlink.NUD_PERMANENT, IP: t.IP.AsSlice(), HardwareAddr: t.MAC[:]}
		if family == unix.AF_BRIDGE {
			n.Flags = netlink.NTF_SELF
		}
		out = append(out, n)
	}
	return out
}
