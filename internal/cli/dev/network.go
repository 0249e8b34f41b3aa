package dev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// space is an open network namespace.
type space struct {
	*netlink.Handle
	fd netns.NsHandle
}

func openSpace(path string) (*space, error) {
	fd, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	h, err := netlink.NewHandleAt(fd)
	if err != nil {
		fd.Close()
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	return &space{h, fd}, nil
}

func (s *space) close() {
	s.Close()
	s.fd.Close()
}

// find returns a link, or nil if there is none of the name.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return l, nil
}

// ensureSwitch makes the bridge and the machine's link to it.
func (c *Cluster) ensureSwitch() error {
	if err := makeNamespace(c.namespace(switchName)); err != nil {
		return err
	}
	sw, err := openSpace(c.namespace(switchName))
	if err != nil {
		return err
	}
	defer sw.close()
	mtu := uplinkMTU()
	bridge, err := find(sw.Handle, bridgeName)
	if err == nil && bridge == nil {
		bridge = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName, MTU: mtu}}
		err = hint(sw.LinkAdd(bridge))
	}
	if err == nil {
		err = sw.LinkSetUp(bridge)
	}
	if err != nil {
		return fmt.Errorf("the bridge of the nodes: %w", err)
	}
	here, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer here.Close()
	if err := c.ensureLink(here, c.hostLink(), sw, hostPort, mtu); err != nil {
		return err
	}
	return setAddress(here, c.hostLink(), c.gateway(), c.Subnet)
}

// ensureNode makes a node's network namespace and plugs it in.
func (c *Cluster) ensureNode(n Node) error {
	path := c.namespace(n.Name)
	if err := makeNamespace(path); err != nil {
		return err
	}
	sw, err := openSpace(c.namespace(switchName))
	if err != nil {
		return err
	}
	defer sw.close()
	inside, err := openSpace(path)
	if err != nil {
		return err
	}
	defer inside.close()
	if err := c.ensureLink(inside.Handle, nodeLink, sw, n.Name, uplinkMTU()); err != nil {
		return err
	}
	if err := setAddress(inside.Handle, nodeLink, c.Address(n), c.Subnet); err != nil {
		return err
	}
	lo, err := inside.LinkByName("lo")
	if err == nil {
		err = inside.LinkSetUp(lo)
	}
	if err == nil {
		err = inside.RouteReplace(&netlink.Route{Gw: c.gateway().AsSlice()})
	}
	if err != nil {
		return fmt.Errorf("the network of %s: %w", n.Name, err)
	}
	return nil
}

// ensureLink makes a pair of links - one end here, the other a port of the bridge - unless both are there, and plugs it in.
func (c *Cluster) ensureLink(here *netlink.Handle, name string, sw *space, port string, mtu int) error {
	end, err1 := find(here, name)
	portEnd, err2 := find(sw.Handle, port)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if end == nil || portEnd == nil {
		// One end alone is what was left by a namespace that is going away.
		if end != nil {
			err1 = here.LinkDel(end)
		}
		if portEnd != nil {
			err2 = sw.LinkDel(portEnd)
		}
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("removing what is left of link %s: %w", port, err)
		}
		// The hardware address stays, as a machine's does: others remember it.
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu, HardwareAddr: c.hardwareAddr(port)}, PeerName: port, PeerNamespace: netlink.NsFd(sw.fd)}
		if err := here.LinkAdd(veth); err != nil {
			return hint(fmt.Errorf("making the link of %s: %w", port, err))
		}
		if end, err1 = here.LinkByName(name); err1 == nil {
			portEnd, err1 = sw.LinkByName(port)
		}
		if err1 != nil {
			return fmt.Errorf("the link just made: %w", err1)
		}
	}
	if err := errors.Join(sw.LinkSetMTU(portEnd, mtu), here.LinkSetMTU(end, mtu), sw.LinkSetUp(portEnd), here.LinkSetUp(end)); err != nil {
		return fmt.Errorf("link of %s: %w", port, err)
	}
	return plug(sw, port)
}

// plug makes a port part of the bridge.
func plug(sw *space, port string) error {
	link, err := sw.LinkByName(port)
	if err != nil {
		return fmt.Errorf("the port of %s: %w", port, err)
	}
	bridge, err := sw.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("the bridge of the nodes: %w", err)
	}
	if link.Attrs().MasterIndex == bridge.Attrs().Index {
		return nil
	}
	if err := sw.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("plugging in %s: %w", port, err)
	}
	return nil
}

// heal puts a node back on the network.
func (c *Cluster) heal(n Node) error {
	sw, err := openSpace(c.namespace(switchName))
	if err != nil {
		return err
	}
	defer sw.close()
	return plug(sw, n.Name)
}

// cut takes a node off the network: its link stays up, but what it sends goes nowhere, as when a switch fails somewhere.
func (c *Cluster) cut(n Node) error {
	sw, err := openSpace(c.namespace(switchName))
	if err != nil {
		return err
	}
	defer sw.close()
	port, err := sw.LinkByName(n.Name)
	if err == nil {
		err = sw.LinkSetNoMaster(port)
	}
	if err != nil {
		return fmt.Errorf("cutting off %s: %w", n.Name, err)
	}
	return nil
}

// isCut reports whether a node is off the network.
func (c *Cluster) isCut(n Node) bool {
	if !isNamespace(c.namespace(switchName)) {
		return true
	}
	sw, err := openSpace(c.namespace(switchName))
	if err != nil {
		return true
	}
	defer sw.close()
	port, err := sw.LinkByName(n.Name)
	return err != nil || port.Attrs().MasterIndex == 0
}

// setAddress gives a link its one address.
func setAddress(h *netlink.Handle, name string, addr netip.Addr, subnet netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(subnet.Bits(), 32)}})
	}
	if err != nil {
		return fmt.Errorf("address %v of link %s: %w", addr, name, err)
	}
	return nil
}

// uplinkMTU is that of the machine's default route, so that nothing larger is sent into the cluster than what gets out of it; 1500 at most.
func uplinkMTU() int {
	mtu := 1500
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil {
		return mtu
	}
	for _, r := range routes {
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU >= 1280 {
			mtu = min(mtu, l.Attrs().MTU)
		}
	}
	return mtu
}

// removeNetwork removes all namespaces and the machine's link to them.
func (c *Cluster) removeNetwork() error {
	var errs []error
	here, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer here.Close()
	link, err := find(here, c.hostLink())
	if err == nil && link != nil {
		err = here.LinkDel(link)
	}
	errs = append(errs, err)
	entries, err := os.ReadDir(c.namespaces())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		errs = append(errs, removeNamespace(c.namespace(e.Name())))
	}
	if err := os.Remove(c.namespaces()); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
