package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	links "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/ipam"
)

// Lost is a sandbox whose link somebody else deleted.
type Lost struct {
	ipam.Allocation
	// Err is why the link could not be made anew, so that the sandbox must be; nil once the pod is connected as before.
	Err error
}

// restTime is the shortest time between two looks that found a lost link: somebody may go on deleting them.
const restTime = time.Second

// WatchLinks makes the links of sandboxes anew that somebody else deleted, and tells lost, until ctx ends: those that are missing at the
// start, and then as the kernel reports it. It sleeps in the kernel; a link that is deleted by whomever wakes it for a moment.
func (p *Plugin) WatchLinks(ctx context.Context, lost func(Lost)) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("watching links: %w", err)
	}
	defer conn.Close()
	if err := conn.JoinGroup(unix.RTNLGRP_LINK); err != nil {
		return fmt.Errorf("watching links: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	deleted := func(string) bool { return true } // at first any may be
	for {
		if p.repairLost(deleted, lost) {
			select {
			case <-time.After(restTime):
			case <-ctx.Done():
				return nil
			}
		}
		deleted, err = awaitDeletion(conn)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("watching links: %w", err)
		}
	}
}

// awaitDeletion waits until links were deleted, and returns which: all may be if messages were lost.
func awaitDeletion(conn *netlink.Conn) (deleted func(name string) bool, err error) {
	names := map[string]bool{}
	for len(names) == 0 {
		messages, err := conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			return func(string) bool { return true }, nil
		}
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_DELLINK || len(m.Data) < unix.SizeofIfInfomsg {
				continue
			}
			ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
			if err != nil {
				continue
			}
			for ad.Next() {
				if ad.Type() == unix.IFLA_IFNAME {
					names[ad.String()] = true
				}
			}
		}
	}
	return func(name string) bool { return names[name] }, nil
}

// repairLost makes those of the deleted links anew that are lost, and reports whether there were any.
func (p *Plugin) repairLost(deleted func(name string) bool, lost func(Lost)) (found bool) {
	for _, a := range p.Pool.List() {
		if !deleted(a.Link) {
			continue
		}
		if l, ok := p.repairOne(a.Owner); ok {
			found = true
			lost(l)
		}
	}
	return found
}

// repairOne makes the link of owner anew. ok is false if nothing is lost: the link is there, or the runtime took the sandbox away.
func (p *Plugin) repairOne(owner ipam.Owner) (l Lost, ok bool) {
	defer p.lock(owner)()
	a, known := p.Pool.Get(owner)
	if !known {
		return l, false
	}
	_, err := links.LinkByName(a.Link)
	var missing links.LinkNotFoundError
	if err == nil || !errors.As(err, &missing) {
		return l, false
	}
	return Lost{Allocation: a, Err: p.repair(a)}, true
}

// repair makes the link of a sandbox anew, with the address that it has: processes in the pod keep their sockets, and connections go on
// if their peers waited.
func (p *Plugin) repair(a ipam.Allocation) error {
	if a.NetNS == "" {
		return errors.New("the sandbox's network namespace is not known")
	}
	ns, err := os.Open(a.NetNS)
	if err != nil {
		return fmt.Errorf("the sandbox's network namespace: %w", err)
	}
	defer ns.Close()
	return p.link(a, int(ns.Fd()), p.MTU()).connect()
}
