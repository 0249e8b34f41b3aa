package dev

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/nettest"
)

// The network of a cluster, without any node's process: made twice, used, cut, healed, killed and removed, in a namespace of the test's.
func TestNetworkOfACluster(t *testing.T) {
	if os.Getenv("KNARR_E2E") == "" {
		t.Skip("mounts network namespaces below a temporary directory: set KNARR_E2E=1 and be root")
	}
	machine := nettest.New(t)
	c := &Cluster{layout: newLayout(filepath.Join(t.TempDir(), "cluster")), Settings: of("SA")}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	do := func(what string, f func() error) {
		t.Helper()
		machine.Do(func() {
			if err := f(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Cleanup(func() {
		machine.Do(func() {
			if err := c.removeNetwork(); err != nil {
				t.Error(err)
			}
		})
	})
	var before int
	do("links", func() error { links, err := netlink.LinkList(); before = len(links); return err })
	do("choosing addresses", func() error { return c.chooseSubnet("") })
	for range 2 {
		do("the switch", c.ensureSwitch)
		for _, n := range c.Nodes {
			do(n.Name, func() error { return c.ensureNode(n) })
		}
	}
	do("checking addresses again", func() error { return c.chooseSubnet("") })

	reaches := func(want bool) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for {
			got := exchange(t, c)
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("node 1 reaches node 2: %v, want %v", got, want)
			}
		}
	}
	reaches(true)
	do("cut", func() error { return c.cut(c.Nodes[1]) })
	if !c.isCut(c.Nodes[1]) || c.isCut(c.Nodes[0]) {
		t.Error("a cut node does not show as such")
	}
	reaches(false)
	do("heal", func() error { return c.heal(c.Nodes[1]) })
	reaches(true)

	// A machine that comes back after a power failure is known by the same hardware address.
	do("losing a namespace", func() error { return removeNamespace(c.namespace(c.Nodes[1].Name)) })
	if isNamespace(c.namespace(c.Nodes[1].Name)) {
		t.Error("the namespace is still there")
	}
	do("making it again", func() error { return c.ensureNode(c.Nodes[1]) })
	reaches(true)

	do("removing all", c.removeNetwork)
	do("removing nothing", c.removeNetwork)
	do("links", func() error {
		links, err := netlink.LinkList()
		if len(links) != before {
			t.Errorf("%d links before, %d afterwards", before, len(links))
		}
		return err
	})
	if _, err := os.Stat(c.namespaces()); err == nil {
		t.Errorf("%s is still there", c.namespaces())
	}
}

// exchange sends a datagram from node 1 to node 2 and reports whether it came.
func exchange(t *testing.T, c *Cluster) (came bool) {
	t.Helper()
	var server, client net.Conn
	open := func(n Node, f func() error) {
		if err := inNamespace(c.namespace(n.Name), f); err != nil {
			t.Fatal(err)
		}
	}
	to := &net.UDPAddr{IP: c.Address(c.Nodes[1]).AsSlice(), Port: 7}
	open(c.Nodes[1], func() (err error) { server, err = net.ListenUDP("udp4", to); return err })
	defer server.Close()
	open(c.Nodes[0], func() (err error) { client, err = net.DialUDP("udp4", nil, to); return err })
	defer client.Close()
	if _, err := client.Write([]byte("hello")); err != nil {
		return false
	}
	_ = server.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := server.Read(make([]byte, 10))
	return err == nil && n == 5
}

func TestNoNamespace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ns")
	if isNamespace(path) {
		t.Error("a file that is not there is a namespace")
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if isNamespace(path) {
		t.Error("an empty file, as is left by a restart of the machine, is a namespace")
	}
	if err := inNamespace(path, func() error { t.Error("entered it"); return nil }); err == nil {
		t.Error("an empty file was entered")
	}
	if err := removeNamespace(path); err != nil {
		t.Error(err)
	}
	if err := removeNamespace(path); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := hint(unix.EOPNOTSUPP); err == unix.EOPNOTSUPP {
		t.Error("an error of a kernel without bridges says nothing about that")
	}
}
