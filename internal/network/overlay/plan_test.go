package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/network/nft"
)

var self = Self{Name: "a", IP: netip.MustParseAddr("192.0.2.1"), PodCIDR: netip.MustParsePrefix("10.244.1.0/24"),
	ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), Mode: Auto, VNI: 1, Port: 8472}

var self6 = Self{Name: "a", IP: netip.MustParseAddr("2001:db8::1"), PodCIDR: netip.MustParsePrefix("fd00:244::/64"),
	ClusterCIDR: netip.MustParsePrefix("fd00:244::/32"), Mode: Auto, VNI: 1, Port: 8472}

var under = Underlay{Index: 2, MTU: 1500, OnLink: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}

func peer(name, ip string, cidrs ...string) Peer {
	p := Peer{Name: name, IP: netip.MustParseAddr(ip)}
	for _, c := range cidrs {
		p.PodCIDRs = append(p.PodCIDRs, netip.MustParsePrefix(c))
	}
	return p
}

// text writes a plan so that it can be read.
func text(p Plan) string {
	out := []string{fmt.Sprintf("pods %d", p.PodMTU)}
	if l := p.Link; l != nil {
		out = append(out, fmt.Sprintf("link vni %d port %d local %v mac %x addr %v mtu %d", l.VNI, l.Port, l.Local, l.MAC, l.Addr, l.MTU))
	}
	for _, t := range p.Tunnels {
		out = append(out, fmt.Sprintf("tunnel %v %x", t.IP, t.MAC))
	}
	for _, r := range p.Routes {
		if r.Device == Nowhere {
			out = append(out, fmt.Sprintf("unreachable %v", r.Dst))
			continue
		}
		out = append(out, fmt.Sprintf("%v via %v %s src %v", r.Dst, r.Via, map[Device]string{OnUnderlay: "direct", OnOverlay: "vxlan"}[r.Device], r.Src))
	}
	return strings.Join(append(out, p.Refused...), "\n")
}

func TestPlan(t *testing.T) {
	near, far := peer("b", "192.0.2.2", "10.244.2.0/24"), peer("c", "198.51.100.3", "10.244.3.0/24")
	for _, tc := range []struct {
		name  string
		mode  Mode
		peers []Peer
		want  string
	}{
		{"alone", Auto, []Peer{peer("a", "192.0.2.1", "10.244.1.0/24")}, "pods 1500"},
		{"a machine on the same link", Auto, []Peer{near}, `pods 1500
unreachable 10.244.0.0/16
10.244.2.0/24 via 192.0.2.2 direct src 192.0.2.1`},
		{"a machine elsewhere", Auto, []Peer{far}, `pods 1450
link vni 1 port 8472 local 192.0.2.1 mac 0a6bc0000201 addr 10.244.1.1 mtu 1450
tunnel 198.51.100.3 0a6bc6336403
unreachable 10.244.0.0/16
10.244.3.0/24 via 198.51.100.3 vxlan src 10.244.1.1`},
		{"both", Auto, []Peer{far, near}, `pods 1450
link vni 1 port 8472 local 192.0.2.1 mac 0a6bc0000201 addr 10.244.1.1 mtu 1450
tunnel 198.51.100.3 0a6bc6336403
unreachable 10.244.0.0/16
10.244.2.0/24 via 192.0.2.2 direct src 192.0.2.1
10.244.3.0/24 via 198.51.100.3 vxlan src 10.244.1.1`},
		{"vxlan to all", VXLAN, []Peer{near}, `pods 1450
link vni 1 port 8472 local 192.0.2.1 mac 0a6bc0000201 addr 10.244.1.1 mtu 1450
tunnel 192.0.2.2 0a6bc0000202
unreachable 10.244.0.0/16
10.244.2.0/24 via 192.0.2.2 vxlan src 10.244.1.1`},
		{"vxlan, alone: pods are ready for it", VXLAN, nil, "pods 1450"},
		{"plain routes only", Routes, []Peer{near, far}, `pods 1500
unreachable 10.244.0.0/16
10.244.2.0/24 via 192.0.2.2 direct src 192.0.2.1
node c (198.51.100.3) shares no link with this machine, plain routes cannot lead there: use the overlay mode auto or vxlan`},
		{"none", None, []Peer{near, far}, "pods 1500"},
		{"the same address", Auto, []Peer{peer("b", "192.0.2.1", "10.244.2.0/24")}, `pods 1500
node b has the address 192.0.2.1 of node a`},
		{"the same pod CIDR", Auto, []Peer{near, peer("c", "192.0.2.3", "10.244.2.128/25", "10.244.3.0/24"), peer("d", "192.0.2.4", "10.244.1.0/24")}, `pods 1500
unreachable 10.244.0.0/16
10.244.2.0/24 via 192.0.2.2 direct src 192.0.2.1
10.244.3.0/24 via 192.0.2.3 direct src 192.0.2.1
pod CIDR 10.244.2.128/25 of node c overlaps that of node b
pod CIDR 10.244.1.0/24 of node d overlaps that of node a`},
		{"a pod CIDR from elsewhere", VXLAN, []Peer{peer("b", "192.0.2.2", "100.64.0.0/24")}, `pods 1450
pod CIDR 100.64.0.0/24 of node b is not inside of the cluster CIDR 10.244.0.0/16`},
		{"the default route as a pod CIDR", VXLAN, []Peer{peer("b", "192.0.2.2", "0.0.0.0/0")}, `pods 1450
pod CIDR 0.0.0.0/0 of node b is not inside of the cluster CIDR 10.244.0.0/16`},
	} {
		s := self
		s.Mode = tc.mode
		if got := text(MakePlan(s, under, tc.peers)); got != tc.want {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
}

func TestPointToPointAddressesShareNoLink(t *testing.T) {
	// As clouds do it: the machine has a /32 and a router.
	plan := MakePlan(self, Underlay{Index: 2, MTU: 1460, OnLink: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}, []Peer{peer("b", "192.0.2.2", "10.244.2.0/24")})
	if len(plan.Tunnels) != 1 || plan.PodMTU != 1410 {
		t.Errorf("%s", text(plan))
	}
}

// drive changes have as the kernel would by changes.
func drive(have State, c Changes) State {
	if c.DeleteFirst || c.DeleteLast {
		have.Link, have.Forwards, have.Neighbours = nil, nil, nil
		have.Routes = slices.DeleteFunc(slices.Clone(have.Routes), func(r Route) bool { return r.Device == OnOverlay })
	}
	for _, l := range []*Link{c.Make, c.Adjust} {
		if l != nil {
			copied := *l
			have.Link = &copied
		}
	}
	set := func(list, entries []Tunnel, same func(a, b Tunnel) bool, del []Tunnel) []Tunnel {
		list = without(slices.Clone(list), entries, same)
		return append(without(list, del, func(a, b Tunnel) bool { return a == b }), entries...)
	}
	have.Forwards = set(have.Forwards, c.SetForwards, func(a, b Tunnel) bool { return a.MAC == b.MAC }, c.DeleteForwards)
	have.Neighbours = set(have.Neighbours, c.SetNeighbours, func(a, b Tunnel) bool { return a.IP == b.IP }, c.DeleteNeighbours)
	have.Routes = without(slices.Clone(have.Routes), c.SetRoutes, func(a, b Route) bool { return a.Dst == b.Dst })
	have.Routes = append(without(have.Routes, c.DeleteRoutes, func(a, b Route) bool { return a.Dst == b.Dst }), c.SetRoutes...)
	return have
}

// TestAnyStateLeadsToThePlan: whatever a crash, an earlier mode or somebody else left, one round of steps is enough, and the
// next has nothing to do.
func TestAnyStateLeadsToThePlan(t *testing.T) {
	plans := rapid.Custom(func(t *rapid.T) Plan {
		s := self
		s.Mode = rapid.SampledFrom([]Mode{Auto, VXLAN, Routes, None}).Draw(t, "mode")
		s.VNI = rapid.IntRange(1, 2).Draw(t, "vni")
		var peers []Peer
		for i := range rapid.IntRange(0, 4).Draw(t, "peers") {
			net := rapid.SampledFrom([]string{"192.0.2", "198.51.100"}).Draw(t, "net")
			peers = append(peers, peer(fmt.Sprint("p", i), fmt.Sprintf("%s.%d", net, rapid.IntRange(2, 4).Draw(t, "host")),
				fmt.Sprintf("10.244.%d.0/24", rapid.IntRange(2, 5).Draw(t, "cidr"))))
		}
		u := under
		u.MTU = rapid.SampledFrom([]int{1500, 9000}).Draw(t, "mtu")
		return MakePlan(s, u, peers)
	})
	rapid.Check(t, func(t *rapid.T) {
		before, want := plans.Draw(t, "before"), plans.Draw(t, "want")
		have := drive(State{}, Difference(before, State{}))
		if rapid.Bool().Draw(t, "damage") && len(have.Routes) > 0 {
			have.Routes = have.Routes[1:]
		}
		have = drive(have, Difference(want, have))
		if c := Difference(want, have); !c.Empty() {
			t.Fatalf("after one round there is still %+v to do;\nwant %s", c, text(want))
		}
		if len(have.Routes) != len(want.Routes) || want.Link != nil && (len(have.Forwards) != len(want.Tunnels) || len(have.Neighbours) != len(want.Tunnels)) {
			t.Fatalf("too much is left: %+v, want %s", have, text(want))
		}
	})
}

func TestOnlyWhatDiffersIsTouched(t *testing.T) {
	vx := self
	vx.Mode = VXLAN
	b, c := peer("b", "192.0.2.2", "10.244.2.0/24"), peer("c", "192.0.2.3", "10.244.3.0/24")
	have := drive(State{}, Difference(MakePlan(vx, under, []Peer{b}), State{}))
	add := Difference(MakePlan(vx, under, []Peer{b, c}), have)
	if add.Make != nil || add.DeleteFirst || add.Adjust != nil || len(add.SetRoutes) != 1 || len(add.SetForwards) != 1 || len(add.SetNeighbours) != 1 || len(add.DeleteRoutes) != 0 {
		t.Errorf("one more machine: %+v", add)
	}
	moved := Difference(MakePlan(self, under, []Peer{b}), have)
	if len(moved.SetRoutes) != 1 || len(moved.DeleteRoutes) != 0 || !moved.DeleteLast {
		t.Errorf("from VXLAN to plain routes: %+v, want the route replaced before the link goes", moved)
	}
	jumbo := under
	jumbo.MTU = 9000
	if grown := Difference(MakePlan(vx, jumbo, []Peer{b}), have); grown.Adjust == nil || grown.DeleteFirst || len(grown.SetRoutes) != 0 {
		t.Errorf("another MTU: %+v, want the link adjusted in place", grown)
	}
}

func TestPeersFromNodes(t *testing.T) {
	node := func(change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.2.0/24", PodCIDRs: []string{"10.244.2.0/24", "fd00::/64"}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "b"}, {Type: corev1.NodeExternalIP, Address: "203.0.113.1"},
				{Type: corev1.NodeInternalIP, Address: "fd00::1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.2"}}}}
		if change != nil {
			change(n)
		}
		return n
	}
	known := map[string]Peer{}
	steps := []struct {
		name    string
		event   client.EventType
		node    *corev1.Node
		changed bool
		peers   int
	}{
		{"without a pod CIDR yet", client.Added, node(func(n *corev1.Node) { n.Spec = corev1.NodeSpec{} }), false, 0},
		{"with one", client.Modified, node(nil), true, 1},
		{"a heartbeat", client.Modified, node(func(n *corev1.Node) { n.Annotations = map[string]string{"x": "y"} }), false, 1},
		{"another address", client.Modified, node(func(n *corev1.Node) { n.Status.Addresses[3].Address = "192.0.2.9" }), true, 1},
		{"not ready, but there", client.Modified, node(func(n *corev1.Node) { n.Status.Addresses[3].Address = "192.0.2.9"; n.Spec.Unschedulable = true }), false, 1},
		{"gone", client.Deleted, node(nil), true, 0},
		{"a hollow one", client.Added, node(func(n *corev1.Node) { n.Labels = map[string]string{hollowLabel: "true"} }), false, 0},
	}
	for _, s := range steps {
		if got := observe(known, client.Event{Type: s.event, Object: s.node}, nft.IPv4); got != s.changed || len(known) != s.peers {
			t.Errorf("%s: changed %v, %d peers; want %v, %d", s.name, got, len(known), s.changed, s.peers)
		}
	}
	p, ok := peerOf(node(nil), nft.IPv4)
	if !ok || !p.equal(peer("b", "192.0.2.2", "10.244.2.0/24")) {
		t.Errorf("%+v %v", p, ok)
	}
}

func TestModes(t *testing.T) {
	if m, err := ParseMode(""); m != Auto || err != nil {
		t.Errorf("%q %v", m, err)
	}
	if _, err := ParseMode("wireguard"); err == nil || !strings.Contains(err.Error(), "vxlan") {
		t.Errorf("%v, want an error that names what there is", err)
	}
}

func TestPlanOfIPv6(t *testing.T) {
	plan := MakePlan(self6, Underlay{Index: 2, MTU: 1500, OnLink: []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}},
		[]Peer{peer("b", "2001:db8::2", "fd00:244:2::/64"), peer("c", "2001:db8:1::3", "fd00:244:3::/64")})
	mac := func(s string) string { return fmt.Sprintf("%x", MACOf(netip.MustParseAddr(s))) }
	want := `pods 1430
link vni 1 port 8472 local 2001:db8::1 mac ` + mac("2001:db8::1") + ` addr fd00:244::1 mtu 1430
tunnel 2001:db8:1::3 ` + mac("2001:db8:1::3") + `
unreachable fd00:244::/32
fd00:244:2::/64 via 2001:db8::2 direct src 2001:db8::1
fd00:244:3::/64 via 2001:db8:1::3 vxlan src fd00:244::1`
	if got := text(plan); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if mac("2001:db8::1") == mac("2001:db8::2") || !strings.HasPrefix(mac("2001:db8::1"), "0a6c") {
		t.Errorf("MACs %s and %s are not of their own", mac("2001:db8::1"), mac("2001:db8::2"))
	}
}

func TestPeersOfEachFamily(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.2.0/24", "fd00:244:2::/64"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.2"}, {Type: corev1.NodeInternalIP, Address: "2001:db8::2"}}}}
	for family, want := range map[nft.Family]Peer{nft.IPv4: peer("b", "192.0.2.2", "10.244.2.0/24"), nft.IPv6: peer("b", "2001:db8::2", "fd00:244:2::/64")} {
		if got, ok := peerOf(n, family); !ok || !got.equal(want) {
			t.Errorf("%v: %+v, want %+v", family, got, want)
		}
	}
}
