package nfttest

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/nft"
)

// writer is what this package imitates.
type writer interface {
	Run(*nft.Transaction) error
	Exists() (bool, error)
	Elements(*nft.Set) ([]nft.Element, error)
}

// onBoth runs f with the table in memory and with one in the kernel: they must not differ.
func onBoth(t *testing.T, f func(t *testing.T, w writer)) {
	t.Run("memory", func(t *testing.T) { f(t, New(nft.IPv4)) })
	t.Run("kernel", func(t *testing.T) {
		nettest.New(t).Do(func() {
			conn, err := nft.Open(nft.Table{Family: nft.IPv4, Name: "knarr-test"})
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			f(t, conn)
		})
	})
}

var (
	ports = &nft.Set{Name: "ports", Key: []nft.Type{nft.InetProto, nft.InetService}, Size: 2}
	hosts = &nft.Set{Name: "hosts", Key: []nft.Type{nft.InetService}, Value: []nft.Type{nft.IPv4Addr}}
	only  = &nft.Set{Name: "only", Key: []nft.Type{nft.InetService}}
	ways  = &nft.Set{Name: "ways", Key: []nft.Type{nft.InetService}, Verdicts: true}
)

func port(n uint16) nft.Element {
	return nft.Element{Key: nft.Fields(nil).Protocol(6).Port(n)}
}

func host(n uint16, addr string) nft.Element {
	return nft.Element{Key: nft.Fields(nil).Port(n), Value: nft.Fields(nil).Addr(netip.MustParseAddr(addr))}
}

func way(n uint16, chain string) nft.Element {
	return nft.Element{Key: nft.Fields(nil).Port(n), Verdict: &nft.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func TestWhatTheKernelRefusesIsRefusedAsAWhole(t *testing.T) {
	steps := []struct {
		name string
		do   func(tx *nft.Transaction)
		err  error
	}{
		{"a set without a table", func(tx *nft.Transaction) { tx.AddSet(ports) }, unix.ENOENT},
		{"the table", func(tx *nft.Transaction) {
			tx.Replace()
			tx.AddSet(ports)
			tx.AddSet(hosts)
			tx.AddSet(ways)
			tx.AddChain(nft.Chain{Name: "to", Rules: []nft.Rule{nft.Accept()}})
		}, nil},
		{"elements", func(tx *nft.Transaction) {
			tx.Add(ports, port(1), port(2))
			tx.Add(hosts, host(1, "192.0.2.1"))
			tx.Add(ways, way(1, "to"))
		}, nil},
		{"the same elements again", func(tx *nft.Transaction) {
			tx.Add(ports, port(1))
			tx.Add(hosts, host(1, "192.0.2.1"))
			tx.Add(ways, way(1, "to"))
		}, nil},
		{"another value for a key", func(tx *nft.Transaction) { tx.Add(hosts, host(2, "192.0.2.2"), host(1, "192.0.2.9")) }, unix.EEXIST},
		{"another value, the old one deleted before", func(tx *nft.Transaction) {
			tx.Delete(hosts, host(1, ""+"192.0.2.1"))
			tx.Add(hosts, host(1, "192.0.2.9"))
		}, nil},
		{"a key that is not there", func(tx *nft.Transaction) { tx.Delete(ports, port(1)); tx.Delete(ports, port(7)) }, unix.ENOENT},
		{"more than the set takes", func(tx *nft.Transaction) { tx.Add(ports, port(3)) }, unix.ENFILE},
		{"room made before", func(tx *nft.Transaction) { tx.Delete(ports, port(1)); tx.Add(ports, port(3)) }, nil},
		{"an unknown set", func(tx *nft.Transaction) { tx.Add(&nft.Set{Name: "none", Key: ports.Key}, port(1)) }, unix.ENOENT},
		{"an unknown chain", func(tx *nft.Transaction) { tx.Add(ways, way(2, "nowhere")) }, unix.ENOENT},
		{"a rule that asks an unknown set", func(tx *nft.Transaction) {
			tx.AddChain(nft.Chain{Name: "x", Rules: []nft.Rule{nft.Join(nft.LoadPort(8), nft.InSet(8, &nft.Set{Name: "none"}))}})
		}, unix.ENOENT},
		{"a chain that an element leads to", func(tx *nft.Transaction) { tx.DeleteChain("to") }, unix.EBUSY},
		{"that chain, the element deleted before", func(tx *nft.Transaction) { tx.Delete(ways, way(1, "to")); tx.DeleteChain("to") }, nil},
		{"a set that a rule looks into", func(tx *nft.Transaction) {
			tx.AddSet(only)
			tx.AddChain(nft.Chain{Name: "y", Rules: []nft.Rule{nft.Join(nft.LoadPort(8), nft.InSet(8, only))}})
			tx.DeleteSet(only)
		}, unix.EBUSY},
		{"that set, its chain deleted before", func(tx *nft.Transaction) {
			tx.AddSet(only)
			tx.AddChain(nft.Chain{Name: "y", Rules: []nft.Rule{nft.Join(nft.LoadPort(8), nft.InSet(8, only))}})
			tx.DeleteChain("y")
			tx.DeleteSet(only)
		}, nil},
		{"a set that is not there", func(tx *nft.Transaction) { tx.DeleteSet(only) }, unix.ENOENT},
		{"a chain that is not there", func(tx *nft.Transaction) { tx.DeleteChain("to") }, unix.ENOENT},
	}
	onBoth(t, func(t *testing.T, w writer) {
		for _, step := range steps {
			var tx nft.Transaction
			step.do(&tx)
			if err := w.Run(&tx); !errors.Is(err, step.err) {
				t.Errorf("%s: %v, want %v", step.name, err, step.err)
			}
		}
		for set, want := range map[*nft.Set]int{ports: 2, hosts: 1, ways: 0} {
			if elements, err := w.Elements(set); err != nil || len(elements) != want {
				t.Errorf("set %s has %d elements at the end (%v), want %d", set.Name, len(elements), err, want)
			}
		}
		var tx nft.Transaction
		tx.Remove()
		if err := w.Run(&tx); err != nil {
			t.Error(err)
		}
		if exists, err := w.Exists(); exists || err != nil {
			t.Errorf("after it was removed, the table exists: %v, %v", exists, err)
		}
	})
}

func TestDump(t *testing.T) {
	table := New(nft.IPv4)
	var tx nft.Transaction
	tx.Replace()
	tx.AddSet(hosts)
	tx.AddChain(nft.Chain{Name: "to", Rules: []nft.Rule{nft.Join(nft.LoadPort(8), nft.LoadValue(8, 9, hosts), nft.IPv4.DestinationNAT(9, 8))}})
	tx.Add(hosts, host(80, "192.0.2.1"))
	if err := table.Run(&tx); err != nil {
		t.Fatal(err)
	}
	want := `map hosts { inet_service : ipv4_addr }
chain to
  r8 = payload 2+2@2; r9 = @hosts[r8]; dnat r9 : r8
element hosts 80 : 192.0.2.1
`
	if got := table.Dump(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !strings.HasPrefix(table.DumpElements(), "hosts 80") {
		t.Errorf("elements: %s", table.DumpElements())
	}
}
