// Package nettest gives tests network namespaces of their own: real links, routes and nftables, and no trace on the machine.
//
// What flows through it: a test makes namespaces, joins them with links and runs functions inside. What must stay true: a
// namespace has no name anywhere and is gone with the last file or socket in it, even if the test is killed. Tests:
// TestPurgeLeavesNoTrace (internal/network).
package nettest

import (
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace.
type NS struct {
	t  testing.TB
	fd netns.NsHandle
}

// New returns a namespace with its loopback up. It skips the test where the process may not make one.
func New(t testing.TB) *NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces, links and nftables rules")
	}
	ns := &NS{t: t}
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine and its namespace does not leak into others.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns.fd, err = netns.Get()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() { ns.fd.Close() })
	ns.Do(func() {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Errorf("loopback: %v", err)
		}
	})
	return ns
}

// FD returns the namespace's file descriptor.
func (ns *NS) FD() int { return int(ns.fd) }

// Do runs f inside of the namespace, with /proc/sys/net and new sockets being the namespace's, and waits for it. Sockets must be
// opened by f itself, not by goroutines it starts.
func (ns *NS) Do(f func()) {
	ns.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(ns.fd)
		if err == nil {
			defer func() { done <- nil }()
			f()
			return
		}
		done <- err
	}()
	if err := <-done; err != nil {
		ns.t.Fatalf("entering network namespace: %v", err)
	}
}

// Must runs f inside of the namespace and fails the test on an error.
func (ns *NS) Must(what string, f func() error) {
	ns.t.Helper()
	var err error
	ns.Do(func() { err = f() })
	if err != nil {
		ns.t.Fatalf("%s: %v", what, err)
	}
}

// Connect joins a and b with a veth pair that has these names and addresses (CIDR notation).
func Connect(t testing.TB, a *NS, nameA, addrA string, b *NS, nameB, addrB string) {
	t.Helper()
	a.Must("veth pair", func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = nameA
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerNamespace = nameB, netlink.NsFd(b.FD())
		return netlink.LinkAdd(veth)
	})
	a.Must(nameA, func() error { return up(nameA, addrA) })
	b.Must(nameB, func() error { return up(nameB, addrB) })
}

func up(name, addr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		return err
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD // of use at once
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// ConnectHere joins the namespace of the calling process (see Isolate) and b.
func ConnectHere(t testing.TB, nameA, addrA string, b *NS, nameB, addrB string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = nameB, netlink.NsFd(b.FD())
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatalf("veth pair: %v", err)
	}
	if err := up(nameA, addrA); err != nil {
		t.Fatalf("%s: %v", nameA, err)
	}
	b.Must(nameB, func() error { return up(nameB, addrB) })
}
