package overlay

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/nft"
)

// many returns peers elsewhere than on the underlay's link.
func many(f nft.Family, n int) []Peer {
	var peers []Peer
	for i := range n {
		if f == nft.IPv6 {
			peers = append(peers, peer(fmt.Sprint("p", i), fmt.Sprintf("2001:db8:1::%x", i+1), fmt.Sprintf("fd00:244:%x::/64", i+1)))
			continue
		}
		peers = append(peers, peer(fmt.Sprint("p", i), fmt.Sprintf("198.18.%d.%d", i/250, i%250+1), fmt.Sprintf("10.%d.%d.0/24", 1+i/250, i%250)))
	}
	return peers
}

// inKernel runs f in a namespace whose link eth0 has self's address.
func inKernel(t testing.TB, family nft.Family, f func(o *Overlay) error) {
	t.Helper()
	here, there := nettest.New(t), nettest.New(t)
	s := self
	s.PodCIDR, s.ClusterCIDR = netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.0.0.0/8")
	if family == nft.IPv6 {
		s = self6
	}
	bits := fmt.Sprint("/", map[nft.Family]int{nft.IPv4: 24, nft.IPv6: 64}[family])
	nettest.Connect(t, here, "eth0", s.IP.String()+bits, there, "eth0", s.IP.Next().String()+bits)
	here.Must("overlay", func() error {
		o, err := New(Config{Instance: "test", Self: s, Protocol: 'k', Priority: 7, SetSysctl: func(string, string) error { return nil },
			Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			return err
		}
		return f(o)
	})
}

func TestKernelHasWhatWasPlanned(t *testing.T) {
	for family, cidr := range map[nft.Family]string{nft.IPv4: "10.200.0.0/24", nft.IPv6: "fd00:244:f000::/64"} {
		t.Run(family.String(), func(t *testing.T) {
			inKernel(t, family, func(o *Overlay) error {
				for _, n := range []int{0, 1, 300, 20, 0, 5} {
					o.current = append(many(family, n), peer("near", o.cfg.Self.IP.Next().String(), cidr))
					if !o.step() {
						return fmt.Errorf("%d peers: %s", n, o.failure)
					}
					under, err := FindUnderlay(o.cfg.Self.IP)
					if err != nil {
						return err
					}
					have, err := o.kernel.observe(under)
					if err != nil {
						return err
					}
					if left := Difference(MakePlan(o.cfg.Self, under, o.current), have); !left.Empty() || len(have.Routes) != n+2 || (have.Link != nil) != (n > 0) {
						t.Errorf("%d peers: %d routes, still to do %+v", n, len(have.Routes), left)
					}
				}
				if err := Purge("test", 'k', 7); err != nil {
					return err
				}
				under, err := FindUnderlay(o.cfg.Self.IP)
				if err != nil {
					return err
				}
				if have, err := o.kernel.observe(under); err != nil || have.Link != nil || len(have.Routes) > 0 {
					t.Errorf("after the purge: %+v, %v", have, err)
				}
				return nil
			})
		})
	}
}

func TestPurgeLeavesRoutesOfOthers(t *testing.T) {
	inKernel(t, nft.IPv4, func(o *Overlay) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		foreign := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("10.96.0.0/16")), Protocol: 'k', Priority: 7, Scope: netlink.SCOPE_LINK}
		other := &netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.5.0.0/16")), Gw: net.IPv4(192, 0, 2, 2), Protocol: 'k', Priority: 8}
		for _, r := range []*netlink.Route{foreign, other} {
			if err := netlink.RouteAdd(r); err != nil {
				return err
			}
		}
		if err := Purge("test", 'k', 7); err != nil {
			return err
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		if len(routes) != 3 { // those two and the underlay's own
			t.Errorf("after the purge: %v", routes)
		}
		return err
	})
}

func TestLinkOfSomebodyElse(t *testing.T) {
	inKernel(t, nft.IPv4, func(o *Overlay) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "flannel.1"
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: DefaultPort}); err != nil {
			return err
		}
		o.current = many(nft.IPv4, 1)
		if o.step() || !strings.Contains(o.failure, "VNI 1") {
			t.Errorf("another overlay has the VNI: %q", o.failure)
		}
		if err := Purge("test", 'k', 7); err != nil {
			return err
		}
		_, err := netlink.LinkByName("flannel.1")
		return err
	})
}

// BenchmarkOneMoreNode is what a Node that joins or leaves costs the others.
func BenchmarkOneMoreNode(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			inKernel(b, nft.IPv4, func(o *Overlay) error {
				peers := many(nft.IPv4, n+1)
				i := 0
				for b.Loop() {
					o.current = peers[:n+i%2]
					i++
					if !o.step() {
						return fmt.Errorf("%s", o.failure)
					}
				}
				return nil
			})
		})
	}
}
