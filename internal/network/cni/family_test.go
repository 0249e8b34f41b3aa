package cni

import (
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/knarr-io/knarr/internal/network/ipam"
	"github.com/knarr-io/knarr/internal/network/nettest"
)

// request returns a CNI request for one sandbox.
func request(command, id string) *Request {
	return &Request{Command: command, ContainerID: id, IfName: "eth0", NetNS: "/run/netns/" + id, Config: json.RawMessage(`{"cniVersion":"1.1.0","name":"knarr"}`)}
}

func TestPodsWithAddressesOfBothFamilies(t *testing.T) {
	node, a, b := nettest.New(t), nettest.New(t), nettest.New(t)
	p := testPlugin(t)
	pool, err := ipam.Open(t.TempDir(), netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:244::/64"))
	if err != nil {
		t.Fatal(err)
	}
	p.Pool = pool
	p.NodeAddr = netip.MustParseAddr("192.0.2.1")
	node.Must("addresses and forwarding", func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, text := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
			addr, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(lo, addr); err != nil {
				return err
			}
		}
		for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	call := func(command, id string, ns *nettest.NS) (out any) {
		t.Helper()
		node.Must(command+" of "+id, func() (err error) {
			out, err = p.Handle(t.Context(), request(command, id), ns.FD())
			return err
		})
		return out
	}
	call("ADD", "a", a)
	r := call("ADD", "b", b).(*result)
	var got []string
	for _, ip := range r.IPs {
		got = append(got, ip.Address+" by "+ip.Gateway)
	}
	for _, route := range r.Routes {
		got = append(got, route.Dst)
	}
	if want := "10.244.0.3/32 by 169.254.1.1, fd00:244::3/128 by fe80::1, 0.0.0.0/0, ::/0"; strings.Join(got, ", ") != want {
		t.Errorf("ADD answered %s, want %s", strings.Join(got, ", "), want)
	}
	call("CHECK", "b", b)

	b.Must("listener", func() error {
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
				io.WriteString(c, netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap().String())
				c.Close()
			}
		}()
		return nil
	})
	for addr, client := range map[string]string{"10.244.0.3": "10.244.0.2", "fd00:244::3": "fd00:244::2"} {
		a.Must("from pod to pod by "+addr, func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(addr, "8080"), 5*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			if seen, err := io.ReadAll(c); err != nil || string(seen) != client {
				t.Errorf("%s saw %q (%v), want %q", addr, seen, err, client)
			}
			return nil
		})
		node.Must("from the node to a pod by "+addr, func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(addr, "8080"), 5*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
	}

	// What is lost of either family is told.
	b.Must("address", func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("fd00:244::3/128")
		if err != nil {
			return err
		}
		return netlink.AddrDel(eth0, addr)
	})
	node.Do(func() {
		if _, err := p.Handle(t.Context(), request("CHECK", "b"), b.FD()); err == nil || !strings.Contains(err.Error(), "fd00:244::3") {
			t.Errorf("CHECK of a pod that lost its IPv6 address: %v", err)
		}
	})
	call("DEL", "a", a)
	call("DEL", "b", b)
	node.Must("links", func() error {
		names, err := Links("")
		if len(names) > 0 {
			t.Errorf("left after DEL: %v", names)
		}
		return err
	})
	if left := pool.List(); len(left) > 0 {
		t.Errorf("addresses left after DEL: %v", left)
	}
}
