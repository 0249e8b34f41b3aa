package services

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/network/nettest"
)

func testLayout() Layout {
	return Layout{Table: "knarr-test", LinkPrefix: "kn", PodCIDR: netip.MustParsePrefix("10.244.0.0/24"),
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
		Local: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}
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
		k, err := OpenKernel(testLayout())
		if err != nil {
			t.Error(err)
			return
		}
		defer k.Close()
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
