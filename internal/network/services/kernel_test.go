package services

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/nft"
)

func testLayout() Layout { return layoutOf(nft.IPv4) }

func layoutOf(f nft.Family) Layout {
	if f == nft.IPv6 {
		return Layout{Overlay: "kvx", PodCIDR: netip.MustParsePrefix("fd00:244::/64"), ClusterCIDR: netip.MustParsePrefix("fd00:244::/56"),
			ServiceCIDR: netip.MustParsePrefix("fd00:96::/112"), Local: []netip.Addr{netip.MustParseAddr("fd00:96::a")}}
	}
	return Layout{Overlay: "kvx", PodCIDR: netip.MustParsePrefix("10.244.0.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), Local: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}
}

// openKernel opens the table knarr-test in the network namespace of the calling thread.
func openKernel(t testing.TB, layout Layout) (*Kernel, *nft.Conn) {
	conn, err := nft.Open(nft.Table{Family: layout.Family(), Name: "knarr-test"})
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	return NewKernel(layout, conn), conn
}

// manyServices returns the elements of n Services with so many endpoints each.
func manyServices(n, endpoints int) map[string][]Element {
	out := map[string][]Element{}
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, 96, byte(1 + i/250), byte(1 + i%250)})
		es := []Element{{Key{Set: Frontends, Addr: addr, Proto: TCP, Port: 80}, Value{Picker: Picker{N: uint32(endpoints)}}}}
		for j := range endpoints {
			es = append(es, Element{Key{Set: Endpoints, Addr: addr, Proto: TCP, Port: 80, Slot: uint32(j)},
				Value{Addr: netip.AddrFrom4([4]byte{10, 244, byte(i), byte(j)}), Port: 8080}})
		}
		out[fmt.Sprintf("default/svc-%05d", i)] = es
	}
	return out
}

func TestKernelTwoThousandServices(t *testing.T) {
	ns := nettest.New(t)
	ns.Do(func() {
		k, conn := openKernel(t, testLayout())
		if k == nil {
			return
		}
		defer conn.Close()
		table := NewTable()
		parts := manyServices(2000, 3)
		for owner, es := range parts {
			table.Set(owner, es)
		}
		all := table.All()
		start := time.Now()
		if err := k.Rewrite(all); err != nil {
			t.Error(err)
			return
		}
		t.Logf("2,000 Services of 3 endpoints, %d elements: %v", len(all.Add), time.Since(start))
		table.Rewritten(all)
		start = time.Now()
		if err := k.Rewrite(all); err != nil {
			t.Error(err)
			return
		}
		t.Logf("the same again over the old table: %v", time.Since(start))

		for _, n := range []int{4, 4, 3, 0, 3} {
			var es []Element
			if n > 0 {
				es = manyServices(1, n)["default/svc-00000"]
			}
			table.Set("default/svc-00000", es)
			c := table.Changes()
			start = time.Now()
			if err := k.Apply(c); err != nil {
				t.Errorf("%+v: %v", c, err)
				return
			}
			t.Logf("one Service to %d endpoints: +%d -%d elements in %v", n, len(c.Add), len(c.Delete), time.Since(start))
			table.Written(c)
		}
		out, err := exec.Command("nft", "list", "table", "ip", "knarr-test").CombinedOutput()
		if err != nil {
			t.Errorf("nft: %v %s", err, out)
		}
		if len(out) < 100000 {
			t.Logf("%s", out)
		} else {
			t.Logf("%s ... %s", out[:1500], out[len(out)-4000:])
		}
	})
}

// Users debug with nft, so whatever the table can hold must be something that nft can list (Debian 12's nft 1.0.6 aborts on
// some programs that the kernel takes).
func TestNftListsEveryRule(t *testing.T) {
	for family, addrs := range map[nft.Family][2]string{nft.IPv4: {"10.96.1.1", "10.244.0.5"}, nft.IPv6: {"fd00:96::1", "fd00:244::5"}} {
		t.Run(family.String(), func(t *testing.T) {
			nettest.New(t).Do(func() {
				k, conn := openKernel(t, layoutOf(family))
				if k == nil {
					return
				}
				defer conn.Close()
				table := NewTable()
				table.Set("all", oneOfEach(netip.MustParseAddr(addrs[0]), netip.MustParseAddr(addrs[1])))
				if err := k.Rewrite(table.All()); err != nil {
					t.Error(err)
					return
				}
				out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
				if err != nil {
					t.Errorf("nft list ruleset: %v\n%s", err, out)
				}
				for _, chain := range []string{"pick-3", "pick-3-sticky-60", "pick-node-port-outside-3-sticky-10800"} {
					if !strings.Contains(string(out), "chain "+chain+" {") {
						t.Errorf("nft does not list chain %s:\n%s", chain, out)
					}
				}
				t.Logf("%s", out)
			})
		})
	}
}

// oneOfEach returns elements of all kinds.
func oneOfEach(addr, pod netip.Addr) []Element {
	var out []Element
	for i, set := range []Set{Frontends, OutsideFrontends, NodePorts, OutsideNodePorts} {
		for j, affinity := range []uint32{0, 60, 10800} {
			key := Key{Set: set, Addr: addr, Proto: UDP, Port: uint16(100*i + j)}
			if i >= 2 {
				key.Addr = netip.Addr{}
			}
			out = append(out, Element{key, Value{Picker: Picker{N: 3, NodePort: i >= 2, Outside: i%2 == 1, Affinity: affinity}}})
		}
	}
	out = append(out,
		Element{Key{Set: Frontends, Addr: addr, Proto: SCTP, Port: 80}, Value{Picker: Picker{Drop: true}}},
		Element{Key{Set: Endpoints, Addr: addr, Proto: TCP, Port: 80, Slot: outsideSlots}, Value{Addr: pod, Port: 8080}},
		Element{Key{Set: NodePortEndpoints, Proto: TCP, Port: 30080, Slot: 2}, Value{Addr: pod, Port: 8080}},
		Element{Key{Set: HostPorts, Addr: addr, Proto: TCP, Port: 81}, Value{Addr: pod, Port: 8080}},
		Element{Key{Set: AnyHostPorts, Proto: UDP, Port: 81}, Value{Addr: pod, Port: 8080}},
		Element{Key{Set: Rejects, Addr: addr, Proto: TCP, Port: 82}, Value{}},
		Element{Key{Set: NodeRejects, Proto: TCP, Port: 30082}, Value{}},
		Element{Key{Set: Hairpins, Addr: pod}, Value{}})
	sortElements(out)
	return out
}
