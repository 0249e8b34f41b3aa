package nft

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// sent returns the messages that a transaction becomes.
func sent(t *testing.T, tx *Transaction) []netlink.Message {
	t.Helper()
	var out []netlink.Message
	conn, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		out = append(out, req...)
		return req, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := &Conn{table: Table{Family: IPv6, Name: "knarr-test"}, conn: conn}
	for _, s := range tx.Steps {
		if err := c.add(s); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.Flush() // the fake kernel acknowledges nothing
	return out
}

// listSize returns the size in bytes of the attribute with the elements, and how many there are in it.
func listSize(t *testing.T, m netlink.Message) (size, elements int) {
	t.Helper()
	ad, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		t.Fatal(err)
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			size = len(ad.Bytes())
			ad.Nested(func(nested *netlink.AttributeDecoder) error {
				for nested.Next() {
					elements++
				}
				return nil
			})
		}
	}
	if err := ad.Err(); err != nil {
		t.Fatalf("a message that the kernel cannot read: %v", err)
	}
	return size, elements
}

func TestNoElementIsLostBecauseThereAreMany(t *testing.T) {
	addr := netip.MustParseAddr("fd00::1")
	key := Fields(nil).Addr(addr).Protocol(6).Port(80)
	for name, e := range map[string]Element{
		"set":         {Key: key},
		"map":         {Key: key, Value: Fields(nil).Addr(addr).Port(80)},
		"verdict map": {Key: key, Verdict: &Verdict{Kind: expr.VerdictGoto, Chain: "pick-node-port-outside-10-sticky-10800"}},
		"drop":        {Key: key, Verdict: &Verdict{Kind: expr.VerdictDrop}},
		"expiring":    {Key: key, Timeout: 1e9},
	} {
		t.Run(name, func(t *testing.T) {
			set := &Set{Name: "s", Key: []Type{IPv6Addr, InetProto, InetService}, Verdicts: e.Verdict != nil, Timeout: true}
			if e.Value != nil {
				set.Value = []Type{IPv6Addr, InetService}
			}
			elements := make([]Element, 5000)
			for i := range elements {
				elements[i] = e
			}
			var tx Transaction
			tx.Add(set, elements...)
			total, first := 0, 0
			for _, m := range sent(t, &tx) {
				if m.Header.Type&0xff != unix.NFT_MSG_NEWSETELEM {
					continue
				}
				size, n := listSize(t, m)
				if size+4 > 1<<16-1 {
					t.Errorf("a list of %d bytes", size)
				}
				if total == 0 {
					first = size
					if want := n * elements[0].wireSize(); size != want {
						t.Errorf("%d elements take %d bytes, counted were %d", n, size, want)
					}
				}
				total += n
			}
			if total != len(elements) || first < maxList-elements[0].wireSize() {
				t.Errorf("%d of %d elements were sent, the first %d bytes at once", total, len(elements), first)
			}
		})
	}
}
