package overlay

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Mode says how packets travel to pods of other machines.
type Mode string

// Modes. Auto takes plain routes to machines on the same link and VXLAN to others; None leaves the way to others.
const (
	Auto   Mode = "auto"
	VXLAN  Mode = "vxlan"
	Routes Mode = "routes"
	None   Mode = "none"
)

// ParseMode returns the mode called s; "" is Auto.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(cmp.Or(s, string(Auto))); m {
	case Auto, VXLAN, Routes, None:
		return m, nil
	}
	return "", fmt.Errorf("overlay mode %q: want auto, vxlan, routes or none", s)
}

// Overhead is what VXLAN adds to a packet, in bytes: inner Ethernet header, VXLAN, UDP and IP headers (RFC 7348 section 5).
func Overhead(f nft.Family) int {
	const inner, vxlan, udp = 14, 8, 8
	if f == nft.IPv6 {
		return inner + vxlan + udp + 40
	}
	return inner + vxlan + udp + 20
}

// Peer is another machine.
type Peer struct {
	Name     string
	IP       netip.Addr
	PodCIDRs []netip.Prefix
}

// Self is this machine. Its addresses are of one family, which is that of the plan: pods of a family travel in packets of the same.
type Self struct {
	Name        string
	IP          netip.Addr
	PodCIDR     netip.Prefix
	ClusterCIDR netip.Prefix
	Mode        Mode
	VNI, Port   int // of VXLAN
}

func (s Self) family() nft.Family { return nft.FamilyOf(s.IP) }

// Underlay is the link that has this machine's address.
type Underlay struct {
	Name   string
	Index  int
	MTU    int
	OnLink []netip.Prefix // what its addresses say is reached without a router
}

// Plan is what the kernel shall have. Its parts are ordered and comparable.
type Plan struct {
	Link    *Link // nil while no machine is reached by VXLAN
	Tunnels []Tunnel
	Routes  []Route
	PodMTU  int      // of pod links that are made from now on
	Refused []string // machines that are not reached, and why
}

// Link is the VXLAN link.
type Link struct {
	VNI, Port int
	Local     netip.Addr // source of the packets on the underlay
	MAC       MAC
	Addr      netip.Addr // source address of this machine towards remote pods
	MTU       int
	Up        bool
}

// MAC is an Ethernet address.
type MAC [6]byte

// Tunnel leads packets for a peer to it: a forwarding entry (MAC to IP) and a neighbour entry (IP to MAC) of the link.
type Tunnel struct {
	IP  netip.Addr
	MAC MAC
}

// Device says where a route leads.
type Device int

// Devices. Nowhere answers "unreachable"; Elsewhere is a link that no plan uses.
const (
	Nowhere Device = iota
	OnUnderlay
	OnOverlay
	Elsewhere
)

// Route is a route to pods.
type Route struct {
	Dst    netip.Prefix
	Device Device
	Via    netip.Addr
	Src    netip.Addr // preferred source address of this machine's own packets
}

// MakePlan decides how self reaches the pods of peers.
func MakePlan(self Self, under Underlay, peers []Peer) Plan {
	plan := Plan{PodMTU: under.MTU}
	if self.Mode == VXLAN {
		plan.PodMTU = under.MTU - Overhead(self.family())
	}
	if self.Mode == None {
		return plan
	}
	taken := claims{of: map[netip.Prefix]string{}, sizes: map[int]bool{}}
	taken.add(self.PodCIDR.Masked(), self.Name)
	addrs := map[netip.Addr]string{self.IP: self.Name}
	for _, p := range slices.SortedFunc(slices.Values(peers), func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) }) {
		if p.Name == self.Name {
			continue
		}
		if other, ok := addrs[p.IP]; ok {
			plan.refuse("node %s has the address %v of node %s", p.Name, p.IP, other)
			continue
		}
		device := self.device(under, p.IP)
		if device == Elsewhere {
			plan.refuse("node %s (%v) shares no link with this machine, plain routes cannot lead there: use the overlay mode auto or vxlan", p.Name, p.IP)
			continue
		}
		addrs[p.IP] = p.Name
		if self.routes(&plan, p, device, taken) && device == OnOverlay {
			plan.Tunnels = append(plan.Tunnels, Tunnel{IP: p.IP, MAC: MACOf(p.IP)})
		}
	}
	if len(plan.Tunnels) > 0 {
		plan.PodMTU = under.MTU - Overhead(self.family())
		plan.Link = &Link{VNI: self.VNI, Port: self.Port, Local: self.IP, MAC: MACOf(self.IP), Addr: self.overlayAddr(), MTU: plan.PodMTU, Up: true}
	}
	if len(plan.Routes) > 0 {
		// Pods that are gone, and those of machines that are not known yet: without this route, packets for them would leave by
		// the default route, and between two machines that are each other's router they would go round in circles.
		plan.Routes = append(plan.Routes, Route{Dst: self.ClusterCIDR.Masked(), Device: Nowhere})
	}
	slices.SortFunc(plan.Routes, compareRoutes)
	return plan
}

// routes adds the routes to p's pods and reports whether there are any.
func (s Self) routes(plan *Plan, p Peer, device Device, taken claims) (any bool) {
	src := s.IP
	if device == OnOverlay {
		src = s.overlayAddr()
	}
	for _, dst := range p.PodCIDRs {
		dst = dst.Masked()
		if !s.ClusterCIDR.Contains(dst.Addr()) || dst.Bits() < s.ClusterCIDR.Bits() {
			plan.refuse("pod CIDR %v of node %s is not inside of the cluster CIDR %v", dst, p.Name, s.ClusterCIDR)
			continue
		}
		if other, ok := taken.overlapping(dst); ok {
			plan.refuse("pod CIDR %v of node %s overlaps that of node %s", dst, p.Name, other)
			continue
		}
		taken.add(dst, p.Name)
		plan.Routes = append(plan.Routes, Route{Dst: dst, Device: device, Via: p.IP, Src: src})
		any = true
	}
	return any
}

// claims are the pod CIDRs that are given to routes, masked, with the names of their nodes.
type claims struct {
	of    map[netip.Prefix]string
	sizes map[int]bool // their lengths
}

func (c claims) add(p netip.Prefix, node string) {
	c.of[p], c.sizes[p.Bits()] = node, true
}

// overlapping returns the node whose pod CIDR p overlaps. All CIDRs of a cluster are of one size, unless somebody gave them by
// hand; only then all are looked at.
func (c claims) overlapping(p netip.Prefix) (string, bool) {
	if name, ok := c.of[p]; ok || len(c.sizes) == 1 && c.sizes[p.Bits()] {
		return name, ok
	}
	for other, name := range c.of {
		if other.Overlaps(p) {
			return name, true
		}
	}
	return "", false
}

// device chooses the way to a peer.
func (s Self) device(under Underlay, peer netip.Addr) Device {
	onLink := slices.ContainsFunc(under.OnLink, func(p netip.Prefix) bool { return p.Contains(peer) && !p.IsSingleIP() })
	switch {
	case s.Mode == VXLAN, s.Mode == Auto && !onLink:
		return OnOverlay
	case onLink:
		return OnUnderlay
	}
	return Elsewhere
}

// overlayAddr is the second address of the pod CIDR, which no pod gets (package ipam). With the machine's own address as source,
// answers of remote pods would come back beside the tunnel.
func (s Self) overlayAddr() netip.Addr { return s.PodCIDR.Masked().Addr().Next() }

// MACOf derives the MAC of a machine's VXLAN link from the machine's address: locally administered, known to all without being told.
func MACOf(ip netip.Addr) MAC {
	if ip.Is6() {
		b := sha256.Sum256(ip.AsSlice())
		return MAC{0x0a, 0x6c, b[0], b[1], b[2], b[3]}
	}
	b := ip.As4()
	return MAC{0x0a, 0x6b, b[0], b[1], b[2], b[3]}
}

func (p *Plan) refuse(format string, args ...any) {
	p.Refused = append(p.Refused, fmt.Sprintf(format, args...))
}

func compareRoutes(a, b Route) int {
	return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Dst.Bits(), b.Dst.Bits()))
}
