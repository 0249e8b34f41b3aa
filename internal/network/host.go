package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/cni"
	"github.com/knarr-io/knarr/internal/pki"
)

// routeProtocol marks routes as Knarr's ('k'), so that Purge finds them without records.
const routeProtocol = 'k'

// addressLabel marks addresses on lo as the instance's: "lo:kn" and a hash, within the 15 characters a label has.
func addressLabel(instance string) string { return "lo:" + shortHash(instance) }

// labelPrefix is what the labels of all instances begin with.
const labelPrefix = "lo:" + cni.LinkPrefix

// prepare sets up the node itself. It may run again at any time.
func (n *Node) prepare() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := aloneWith(lo, n.cfg.Instance, n.cfg.ClusterDNS); err != nil {
		return err
	}
	if err := os.MkdirAll(n.cfg.dir(), 0o700); err != nil {
		return err
	}
	if err := setSysctl(n.cfg.dir(), "net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("lo: %w", err)
		}
	}
	if err := setDNSAddress(lo, n.cfg.Instance, n.cfg.ClusterDNS); err != nil {
		return err
	}
	// Without a route - there may be no default route - connect() to a Service address fails before nftables sees a packet. The
	// link does not matter: what is no Service is rejected, what is one gets its real route after translation.
	err = netlink.RouteReplace(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(n.cfg.ServiceCIDR), Src: n.cfg.NodeIP.AsSlice(),
		Scope: netlink.SCOPE_LINK, Protocol: routeProtocol, Priority: routePriority(n.cfg.Instance)})
	if err != nil {
		return fmt.Errorf("route to service CIDR %v from node address %v: %w", n.cfg.ServiceCIDR, n.cfg.NodeIP, err)
	}
	return nil
}

// aloneWith says before anything is changed if another instance in this network namespace has the same addresses: both would take
// each other's pods and Services apart.
func aloneWith(lo netlink.Link, instance string, dns netip.Addr) error {
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("addresses of lo: %w", err)
	}
	for _, a := range addrs {
		if dns.IsValid() && a.IP.Equal(dns.AsSlice()) && a.Label != addressLabel(instance) && strings.HasPrefix(a.Label, labelPrefix) {
			return fmt.Errorf("another instance of Knarr has the cluster DNS address %v in this network namespace: give this one a service CIDR and a cluster CIDR "+
				"of its own, or take the other one down (knarr down; if its data directory is gone: ip addr del %v/32 dev lo)", dns, dns)
		}
	}
	return nil
}

// setDNSAddress gives lo the cluster DNS address and removes one that the configuration had before. Its scope is "host" so that
// the kernel never takes it as the source address of traffic to elsewhere.
func setDNSAddress(lo netlink.Link, instance string, addr netip.Addr) error {
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("addresses of lo: %w", err)
	}
	for _, a := range addrs {
		if a.Label == addressLabel(instance) && !a.IP.Equal(addr.AsSlice()) {
			if err := netlink.AddrDel(lo, &a); err != nil {
				return fmt.Errorf("removing %v from lo: %w", a.IPNet, err)
			}
		}
	}
	if !addr.IsValid() {
		return nil
	}
	err = netlink.AddrReplace(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Scope: unix.RT_SCOPE_HOST, Label: addressLabel(instance)})
	if err != nil {
		return fmt.Errorf("cluster DNS address %v on lo: %w", addr, err)
	}
	return nil
}

// sysctls are the settings that Knarr changed and what they were, kept in a file until Purge puts them back.
type sysctls map[string]string

func sysctlFile(dir string) string { return filepath.Join(dir, "sysctls.json") }

// setSysctl sets key under /proc/sys, having written down what it was.
func setSysctl(dir, key, value string) error {
	path := filepath.Join("/proc/sys", key)
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", key, err)
	}
	was := strings.TrimSpace(string(old))
	if was == value {
		return nil
	}
	saved, err := readSysctls(dir)
	if err != nil {
		return err
	}
	if _, ok := saved[key]; !ok {
		saved[key] = was
		data, err := json.Marshal(saved)
		if err == nil {
			err = pki.WriteFile(sysctlFile(dir), data, 0o600)
		}
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", key, err)
		}
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s: %w", key, err)
	}
	return nil
}

func readSysctls(dir string) (sysctls, error) {
	data, err := os.ReadFile(sysctlFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return sysctls{}, nil
	}
	out := sysctls{}
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("saved sysctls: %w", err)
	}
	return out, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
