package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls deleted whenever somebody may have deleted the table - what `nft flush ruleset` and reloaded firewalls do -
// until ctx ends. It sleeps in the kernel; every transaction wakes it for a moment.
func (c *Conn) Watch(ctx context.Context, deleted func()) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("watching nftables: %w", err)
	}
	defer conn.Close()
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("watching nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		msgs, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			deleted() // messages were lost, that one perhaps among them
			continue
		case err != nil:
			return fmt.Errorf("watching nftables: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE && c.names(m.Data) {
				deleted()
			}
		}
	}
}

// names reports whether a table message names our table.
func (c *Conn) names(data []byte) bool {
	const header = 4 // struct nfgenmsg
	if len(data) < header || data[0] != byte(c.table.Family.netlink()) {
		return false
	}
	ad, err := netlink.NewAttributeDecoder(data[header:])
	if err != nil {
		return false
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_TABLE_NAME {
			return ad.String() == c.table.Name
		}
	}
	return false
}
