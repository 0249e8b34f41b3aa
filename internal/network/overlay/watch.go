package overlay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watchKernel tells the loop when the kernel may have lost something, or the underlay is another one: when a link goes down, its
// routes go. It returns when the socket fails or ctx ends.
func (o *Overlay) watchKernel(ctx context.Context) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer conn.Close()
	groups := []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE}
	if o.kernel.af == unix.AF_INET6 {
		groups = []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE}
	}
	for _, group := range groups {
		if err := conn.JoinGroup(group); err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	o.notify() // whatever happened before
	for {
		messages, err := conn.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		if err != nil || o.matters(messages) {
			o.notify()
		}
	}
}

func (o *Overlay) notify() {
	select {
	case o.changed <- struct{}{}:
	default: // it will look anyway
	}
}

// matters reports whether one of the messages is about what the plan stands on. Pods come and go with links and routes of their
// own, which do not matter.
func (o *Overlay) matters(messages []netlink.Message) bool {
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			return true // pods have none on this side
		case unix.RTM_DELROUTE:
			if len(m.Data) >= unix.SizeofRtMsg && int(m.Data[5]) == o.cfg.Protocol {
				return true
			}
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			if len(m.Data) < unix.SizeofIfInfomsg {
				continue
			}
			if index := int64(binary.NativeEndian.Uint32(m.Data[4:])); index == o.underlay.Load() || index == o.link.Load() {
				return true
			}
		}
	}
	return false
}
