package services

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/nft"
)

// loaded returns an open kernel with n Services of three endpoints; call it inside of a namespace.
func loaded(b *testing.B, n int) (*Kernel, *Table, *nft.Conn) {
	k, conn := openKernel(b, testLayout())
	table := NewTable()
	for owner, es := range manyServices(n, 3) {
		table.Set(owner, es)
	}
	all := table.All()
	if err := k.Rewrite(all); err != nil {
		b.Error(err)
	}
	table.Rewritten(all)
	return k, table, conn
}

// BenchmarkLoad writes a whole table in place of another.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 2000, 10000} {
		b.Run(fmt.Sprint(n, "-services"), func(b *testing.B) {
			nettest.New(b).Do(func() {
				k, table, conn := loaded(b, n)
				defer conn.Close()
				for b.Loop() {
					if err := k.Rewrite(table.All()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkChange adds an endpoint to one Service of many, or takes it away.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{1, 100, 2000, 10000} {
		b.Run(fmt.Sprint("of-", n, "-services"), func(b *testing.B) {
			nettest.New(b).Do(func() {
				k, table, conn := loaded(b, n)
				defer conn.Close()
				i := 0
				for b.Loop() {
					i++
					table.Set("default/svc-00000", manyServices(1, 3+i%2)["default/svc-00000"])
					c := table.Changes()
					if err := k.Apply(c); err != nil {
						b.Error(err)
						return
					}
					table.Written(c)
				}
			})
		})
	}
}

// BenchmarkConnect opens a TCP connection to another namespace and closes it, directly and through one Service of many.
func BenchmarkConnect(b *testing.B) {
	for _, n := range []int{0, 1, 2000, 10000} {
		name, target := fmt.Sprint("through-one-of-", n, "-services"), "10.96.1.1:80"
		if n == 0 {
			name, target = "directly", "10.244.0.2:8080"
		}
		b.Run(name, func(b *testing.B) {
			node, pod := nettest.New(b), nettest.New(b)
			nettest.Connect(b, node, "eth0", "10.244.0.1/16", pod, "eth0", "10.244.0.2/16")
			pod.Must("listener", func() error {
				l, err := net.Listen("tcp4", ":8080")
				if err != nil {
					return err
				}
				b.Cleanup(func() { l.Close() })
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						c.Close()
					}
				}()
				return nil
			})
			node.Do(func() {
				if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
					b.Error(err)
					return
				}
				k, table, conn := loaded(b, max(n, 1))
				defer conn.Close()
				es := manyServices(1, 1)["default/svc-00000"]
				es[1].Value.Addr = netip.MustParseAddr("10.244.0.2")
				table.Set("default/svc-00000", es)
				if err := k.Apply(table.Changes()); err != nil {
					b.Error(err)
					return
				}
				if err := routeServices(); err != nil {
					b.Error(err)
					return
				}
				// The first packets over a new link may be lost.
				if c, err := net.Dial("tcp4", "10.244.0.2:8080"); err == nil {
					c.Close()
				}
				for b.Loop() {
					c, err := net.Dial("tcp4", target)
					if err != nil {
						b.Error(err)
						return
					}
					// The server closes first, so that the client's ports are not used up by TIME_WAIT.
					c.Read(make([]byte, 1))
					c.Close()
				}
			})
		})
	}
}

// routeServices gives Service addresses a route, as the node does.
func routeServices() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	_, dst, err := net.ParseCIDR("10.96.0.0/16")
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Src: net.ParseIP("10.244.0.1"), Scope: netlink.SCOPE_LINK})
}
