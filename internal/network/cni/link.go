package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// LinkPrefix begins the name of every link that Knarr makes for a pod.
const LinkPrefix = "kn"

// gatewayOf returns the address that pods send everything of addr's family to. It exists nowhere: a permanent neighbour entry in the pod
// gives it the host side's MAC, so there is no ARP, no proxy_arp and no address per link (link-local, never routed: RFC 3927, RFC 4291).
func gatewayOf(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		return netip.AddrFrom16([16]byte{0xfe, 0x80, 15: 1})
	}
	return netip.AddrFrom4([4]byte{169, 254, 1, 1})
}

// hostMAC is the host side's, locally administered. All pairs may share it, as each is its own segment; having it set from
// the start keeps udev's MACAddressPolicy from changing it behind the pod's neighbour entry.
var hostMAC = net.HardwareAddr{0x0a, 0x6b, 0x6e, 0, 0, 1}

// podMAC is derived from the address, so that the host's neighbour entry is known before the pod is.
func podMAC(addr netip.Addr) net.HardwareAddr {
	b := addr.As16()
	return net.HardwareAddr{0x0a, 0x58, b[12], b[13], b[14], b[15]}
}

// LinkName returns the name of the host side for an interface of a sandbox: stable, so that DEL finds it without records.
func LinkName(instance, containerID, ifName string) string {
	sum := sha256.Sum256([]byte(instance + "\x00" + containerID + "\x00" + ifName))
	return LinkPrefix + hex.EncodeToString(sum[:5])
}

// alias marks a link as ours, so that [PurgeLinks] finds it without records.
func alias(instance, containerID string) string { return aliasPrefix(instance) + containerID }

func aliasPrefix(instance string) string { return "knarr/" + instance + "/" }

// link is what one pod interface is made of.
type link struct {
	host     string // name of the host side
	alias    string
	ifName   string       // name in the pod
	netns    int          // file descriptor
	addrs    []netip.Addr // the primary one first
	mtu      int
	nodeAddr netip.Addr // preferred source address of the node towards the pod
}

// connect makes the veth pair and everything that belongs to it. What a crashed attempt left under the same name goes first.
func (l link) connect() error {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := deleteLink(host, l.host); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr, attrs.NumTxQueues, attrs.NumRxQueues = l.host, l.mtu, hostMAC, 1, 1
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU, veth.PeerNamespace = l.ifName, podMAC(l.addrs[0]), uint32(l.mtu), netlink.NsFd(l.netns)
	veth.PeerNumTxQueues, veth.PeerNumRxQueues = 1, 1
	if err := host.LinkAdd(veth); err != nil {
		return fmt.Errorf("making link %s: %w", l.host, err)
	}
	err = l.configurePod()
	if err == nil {
		err = l.configureHost(host)
	}
	if err != nil {
		return errors.Join(err, deleteLink(host, l.host))
	}
	return nil
}

// configurePod sets address, neighbour and routes inside of the pod.
func (l link) configurePod() error {
	h, err := netlink.NewHandleAt(netns.NsHandle(l.netns), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("entering the pod's network namespace: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo in the pod: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo in the pod: %w", err)
	}
	eth, err := h.LinkByName(l.ifName)
	if err != nil {
		return fmt.Errorf("%s in the pod: %w", l.ifName, err)
	}
	if err := h.LinkSetUp(eth); err != nil {
		return fmt.Errorf("%s in the pod: %w", l.ifName, err)
	}
	for _, addr := range l.addrs {
		if err := configureAddr(h, eth, addr); err != nil {
			return fmt.Errorf("configuring %s in the pod with %v: %w", l.ifName, addr, err)
		}
	}
	return nil
}

// configureAddr gives the pod's side an address, and the way out for its family.
func configureAddr(h *netlink.Handle, eth netlink.Link, addr netip.Addr) error {
	index, gateway := eth.Attrs().Index, gatewayOf(addr)
	own := &netlink.Addr{IPNet: single(addr)}
	if addr.Is6() {
		own.Flags = unix.IFA_F_NODAD // nobody else is on the link, and the pod may send at once
	}
	if err := h.AddrAdd(eth, own); err != nil {
		return err
	}
	if err := h.NeighSet(neighbour(index, gateway, hostMAC)); err != nil {
		return err
	}
	if err := h.RouteReplace(&netlink.Route{LinkIndex: index, Dst: single(gateway), Scope: netlink.SCOPE_LINK}); err != nil {
		return err
	}
	everything := &net.IPNet{IP: make(net.IP, addr.BitLen()/8), Mask: net.CIDRMask(0, addr.BitLen())}
	return h.RouteReplace(&netlink.Route{LinkIndex: index, Dst: everything, Gw: gateway.AsSlice()})
}

// configureHost sets the host side: how it treats the pod's packets, and the route to the pod.
func (l link) configureHost(h *netlink.Handle) error {
	host, err := h.LinkByName(l.host)
	if err != nil {
		return fmt.Errorf("link %s: %w", l.host, err)
	}
	if err := h.LinkSetAlias(host, l.alias); err != nil {
		return fmt.Errorf("link %s: %w", l.host, err)
	}
	if err := hostSysctls(l.host, slices.ContainsFunc(l.addrs, netip.Addr.Is6)); err != nil {
		return err
	}
	if err := h.LinkSetUp(host); err != nil {
		return fmt.Errorf("link %s: %w", l.host, err)
	}
	index := host.Attrs().Index
	for _, addr := range l.addrs {
		if err := h.NeighSet(neighbour(index, addr, podMAC(l.addrs[0]))); err != nil {
			return fmt.Errorf("neighbour entry for %v: %w", addr, err)
		}
		route := &netlink.Route{LinkIndex: index, Dst: single(addr), Scope: netlink.SCOPE_LINK}
		if l.nodeAddr.IsValid() && l.nodeAddr.Is6() == addr.Is6() {
			route.Src = l.nodeAddr.AsSlice()
		}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %v: %w", addr, err)
		}
	}
	return nil
}

// hostSysctls sets what a host side needs, for IPv6 too or without it. The settings go with the link.
func hostSysctls(name string, six bool) error {
	disable := "1" // no router solicitations and listener reports on a link that has no use for them
	if six {
		disable = "0"
	}
	for _, s := range []struct{ key, value string }{
		{"ipv4/conf/" + name + "/rp_filter", "1"},      // a pod can only send from its own address
		{"ipv4/conf/" + name + "/route_localnet", "1"}, // answers to node ports used through 127.0.0.1
		{"ipv4/conf/" + name + "/accept_redirects", "0"},
		{"ipv6/conf/" + name + "/disable_ipv6", disable},
		{"ipv6/conf/" + name + "/accept_ra", "0"},
	} {
		err := os.WriteFile("/proc/sys/net/"+s.key, []byte(s.value), 0)
		if err != nil && !(os.IsNotExist(err) && strings.HasPrefix(s.key, "ipv6/")) {
			return fmt.Errorf("sysctl net/%s: %w", s.key, err)
		}
	}
	return nil
}

// check returns an error unless the pod's side still is as connect made it.
func (l link) check() error {
	h, err := netlink.NewHandleAt(netns.NsHandle(l.netns), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	eth, err := h.LinkByName(l.ifName)
	if err != nil {
		return fmt.Errorf("%s in the pod: %w", l.ifName, err)
	}
	have, err := h.AddrList(eth, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, addr := range l.addrs {
		if !slices.ContainsFunc(have, func(a netlink.Addr) bool { return a.IP.Equal(addr.AsSlice()) }) {
			return fmt.Errorf("%s in the pod has lost its address %v", l.ifName, addr)
		}
	}
	if _, err := netlink.LinkByName(l.host); err != nil {
		return fmt.Errorf("host side %s: %w", l.host, err)
	}
	return nil
}

// deleteLink deletes the named link, if it is there; its peer, routes and neighbours go with it.
func deleteLink(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkDel(l)
	}
	var missing netlink.LinkNotFoundError
	if err == nil || errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("deleting link %s: %w", name, err)
}

// Links returns the host sides of the instance's pods in this network namespace.
func Links(instance string) ([]string, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	var names []string
	for _, l := range all {
		if strings.HasPrefix(l.Attrs().Alias, aliasPrefix(instance)) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// PurgeLinks deletes all pod links of the instance.
func PurgeLinks(instance string) error {
	names, err := Links(instance)
	if err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, name := range names {
		err = errors.Join(err, deleteLink(h, name))
	}
	return err
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func neighbour(index int, addr netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	return &netlink.Neigh{LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac}
}
