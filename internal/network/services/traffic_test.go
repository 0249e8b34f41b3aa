package services

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/nft"
)

// TestServicesOfBothFamilies sends packets through a table of each family: a client by a node to two pods.
func TestServicesOfBothFamilies(t *testing.T) {
	for family, a := range map[nft.Family]struct{ node, client, one, two, front string }{
		nft.IPv4: {"10.244.0.1/24", "10.244.1.2/24", "10.244.0.2/24", "10.244.0.3/24", "10.96.1.1"},
		nft.IPv6: {"fd00:244::1/64", "fd00:244:0:1::2/64", "fd00:244::2/64", "fd00:244::3/64", "fd00:96::101"},
	} {
		t.Run(family.String(), func(t *testing.T) {
			node, client, pods := nettest.New(t), nettest.New(t), nettest.New(t)
			// Both pods are addresses of one namespace: what answers says which was asked.
			nettest.Connect(t, node, "eth0", a.node, pods, "eth0", a.one)
			gateway := netip.MustParsePrefix(a.client).Addr().Prev()
			nettest.Connect(t, node, "eth1", netip.PrefixFrom(gateway, netip.MustParsePrefix(a.client).Bits()).String(), client, "eth0", a.client)
			one, two := netip.MustParsePrefix(a.one).Addr(), netip.MustParsePrefix(a.two).Addr()
			pods.Must("pods", func() error { return servePods(t, a.two, netip.MustParsePrefix(a.node).Addr()) })
			client.Must("route", func() error { return defaultRoute(gateway) })
			front := netip.MustParseAddr(a.front)
			var k *Kernel
			node.Must("table", func() error {
				for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
					if err := os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0); err != nil {
						return err
					}
				}
				// What is no Service goes anywhere that has a route, to meet the rules that refuse it.
				eth0, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				_, cidr, err := net.ParseCIDR(layoutOf(family).ServiceCIDR.String())
				if err != nil {
					return err
				}
				if err := netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: cidr}); err != nil {
					return err
				}
				var conn *nft.Conn
				if k, conn = openKernel(t, layoutOf(family)); k == nil {
					return errors.New("no table")
				}
				t.Cleanup(func() { conn.Close() })
				table := NewTable()
				table.Set("svc", frontend(front, 80, 0, one, two))
				table.Set("sticky", frontend(front, 81, 3600, one, two))
				table.Set("idle", []Element{{Key{Set: Rejects, Addr: front, Proto: TCP, Port: 82}, Value{}}})
				nodePort := Key{Set: NodePorts, Proto: TCP, Port: 30080}
				table.Set("node port", []Element{{nodePort, Value{Picker: Picker{N: 1, NodePort: true}}},
					{Key{Set: NodePortEndpoints, Proto: TCP, Port: 30080}, Value{Addr: two, Port: 8080}}})
				return k.Rewrite(table.All())
			})
			asked := map[string]int{}
			for range 40 {
				asked[mustDial(t, client, front, 80)]++
			}
			if len(asked) != 2 {
				t.Errorf("two endpoints got these connections: %v", asked)
			}
			first := mustDial(t, client, front, 81)
			for range 10 {
				if again := mustDial(t, client, front, 81); again != first {
					t.Errorf("with session affinity, %s after %s", again, first)
				}
			}
			node.Must("affinity", func() error {
				remembered, err := k.Affinity()
				want := Remembered{netip.MustParsePrefix(a.client).Addr(), front, TCP, 81, netip.AddrPortFrom(netip.MustParseAddr(first), 8080)}
				if err != nil || len(remembered) != 1 || remembered[0] != want {
					t.Errorf("affinity: %v, %v; want %v", remembered, err, want)
				}
				return k.Forget(append(remembered, Remembered{want.Client, want.Addr, UDP, 9, want.Endpoint}))
			})
			node.Must("affinity after Forget", func() error {
				remembered, err := k.Affinity()
				if len(remembered) != 0 {
					t.Errorf("after Forget: %v", remembered)
				}
				return err
			})
			if got := mustDial(t, client, gateway, 30080); got != two.String() {
				t.Errorf("the node port led to %s, want %s", got, two)
			}
			for _, port := range []uint16{82, 83} { // no endpoint, no such port
				if _, err := dial(client, front, port); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("port %d: %v, want connection refused", port, err)
				}
			}
		})
	}
}

// frontend returns the elements of a Service port.
func frontend(addr netip.Addr, port uint16, affinity uint32, pods ...netip.Addr) []Element {
	out := []Element{{Key{Set: Frontends, Addr: addr, Proto: TCP, Port: port}, Value{Picker: Picker{N: uint32(len(pods)), Affinity: affinity}}}}
	for i, p := range pods {
		out = append(out, Element{Key{Set: Endpoints, Addr: addr, Proto: TCP, Port: port, Slot: uint32(i)}, Value{Addr: p, Port: 8080}})
	}
	return out
}

// servePods adds an address to eth0 and answers connections with the address that they came to.
func servePods(t *testing.T, second string, gateway netip.Addr) error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(second)
	if err != nil {
		return err
	}
	addr.Flags = syscall.IFA_F_NODAD
	if err := netlink.AddrAdd(eth0, addr); err != nil {
		return err
	}
	if err := defaultRoute(gateway); err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, netip.MustParseAddrPort(c.LocalAddr().String()).Addr().Unmap())
			c.Close()
		}
	}()
	return nil
}

func defaultRoute(by netip.Addr) error {
	bits := by.BitLen()
	return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}, Gw: by.AsSlice()})
}

// mustDial waits until the first connection works: new links find out about their neighbours.
func mustDial(t *testing.T, from *nettest.NS, addr netip.Addr, port uint16) string {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, err := dial(from, addr, port)
		if err == nil {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v port %d: %v", addr, port, err)
		}
	}
}

// dial returns what answers.
func dial(from *nettest.NS, addr netip.Addr, port uint16) (got string, err error) {
	var c net.Conn
	from.Do(func() { c, err = net.DialTimeout("tcp", netip.AddrPortFrom(addr, port).String(), time.Second) })
	if err != nil {
		return "", err
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	return line[:max(0, len(line)-1)], err
}
