package dev

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/knarr-io/knarr/internal/network"
)

const forwarding = "/proc/sys/net/ipv4/ip_forward"

// ensureUplink lets the nodes reach what the machine reaches: it forwards their packets, under its own address. It says what it changes.
func (c *Cluster) ensureUplink(out io.Writer) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: c.table()})
	conn.FlushTable(t)
	chain := conn.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	conn.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: masquerade(c.Subnet, c.hostLink())})
	if err := conn.Flush(); err != nil {
		return hint(fmt.Errorf("nftables table %s: %w", c.table(), err))
	}
	now, err := os.ReadFile(forwarding)
	if err != nil {
		return err
	}
	if was := strings.TrimSpace(string(now)); was != "1" {
		c.ForwardingWas = was
		if err := c.write(c.settingsFile()); err != nil { // first, so that down finds it
			return err
		}
		if err := os.WriteFile(forwarding, []byte("1"), 0); err != nil {
			return fmt.Errorf("letting packets of the nodes pass: %w", err)
		}
		fmt.Fprintln(out, "set net.ipv4.ip_forward to 1 until knarr dev down, so that pods reach what this machine reaches")
	}
	return nil
}

// masquerade is the rule for what comes from subnet and leaves by another link than own.
func masquerade(subnet netip.Prefix, own string) []expr.Any {
	const sourceOffset, length = 12, 4 // of an IPv4 header
	name := make([]byte, 16)           // IFNAMSIZ
	copy(name, own)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: sourceOffset, Len: length},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: net.CIDRMask(subnet.Bits(), 32), Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: subnet.Masked().Addr().AsSlice()},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
		&expr.Masq{},
	}
}

// removeUplink takes back what ensureUplink did; forwarding only if no other part of Knarr in this network namespace needs it.
func (c *Cluster) removeUplink() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: c.table()}
	conn.AddTable(t) // so that deleting cannot fail
	conn.DelTable(t)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", t.Name, err)
	}
	if c.ForwardingWas == "" {
		return nil
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("listing nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == network.TableName("") || strings.HasPrefix(t.Name, network.TableName("")+"-") {
			return nil
		}
	}
	err = os.WriteFile(forwarding, []byte(c.ForwardingWas), 0)
	c.ForwardingWas = ""
	return errors.Join(err, c.write(c.settingsFile()))
}

// upstreams are the DNS servers that nodes can ask for names outside of the cluster: those given, else the machine's, but for ones on
// its loopback, which nodes do not reach. systemd-resolved keeps the real ones in a file of its own.
func (c *Cluster) upstreams() []string {
	if len(c.UpstreamDNS) > 0 {
		return c.UpstreamDNS
	}
	for _, file := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if servers := planUpstreams(string(b)); len(servers) > 0 {
			return servers
		}
	}
	return nil
}

// planUpstreams returns the name servers in a resolv.conf(5) that other machines reach over IPv4.
func planUpstreams(conf string) (out []string) {
	for line := range strings.Lines(conf) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && a.Is4() && !a.IsLoopback() {
			out = append(out, f[1])
		}
	}
	return out
}
