package nfttest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Dump returns the table's text: a line for each set, chain, rule and element, in a fixed order.
func (t *Table) Dump() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == nil {
		return ""
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t.state.sets)) {
		b.WriteString(typeOf(&t.state.sets[name].Set) + "\n")
	}
	for _, name := range slices.Sorted(maps.Keys(t.state.chains)) {
		b.WriteString(chainText(t.state.chains[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(t.state.sets)) {
		s := t.state.sets[name]
		for _, e := range s.sorted() {
			b.WriteString(elementText(&s.Set, e) + "\n")
		}
	}
	return b.String()
}

// DumpElements returns the text of the elements alone.
func (t *Table) DumpElements() string {
	var out []string
	for line := range strings.Lines(t.Dump()) {
		if strings.HasPrefix(line, "element ") {
			out = append(out, strings.TrimPrefix(strings.TrimSpace(line), "element "))
		}
	}
	return strings.Join(out, "\n")
}

// names of the types in nft.
func names(fields []nft.Type) string {
	texts := [...]string{nft.IPv4Addr: "ipv4_addr", nft.IPv6Addr: "ipv6_addr", nft.InetProto: "inet_proto", nft.InetService: "inet_service", nft.Mark: "mark"}
	var out []string
	for _, f := range fields {
		out = append(out, texts[f])
	}
	return strings.Join(out, " . ")
}

// size returns the bytes that a field of type f takes.
func size(f nft.Type) int {
	if f == nft.IPv6Addr {
		return 16
	}
	return 4
}

func width(fields []nft.Type) int {
	n := 0
	for _, f := range fields {
		n += size(f)
	}
	return n
}

func typeOf(s *nft.Set) string {
	switch {
	case s.Verdicts:
		return fmt.Sprintf("map %s { %s : verdict }", s.Name, names(s.Key))
	case len(s.Value) > 0:
		return fmt.Sprintf("map %s { %s : %s }", s.Name, names(s.Key), names(s.Value))
	}
	return fmt.Sprintf("set %s { %s }", s.Name, names(s.Key))
}

// fieldsText writes fields as nft does: "10.96.0.1 . tcp . 80".
func fieldsText(types []nft.Type, data nft.Fields) string {
	var out []string
	for _, f := range types {
		field := data[:min(size(f), len(data))]
		data = data[len(field):]
		switch f {
		case nft.IPv4Addr, nft.IPv6Addr:
			addr, _ := netip.AddrFromSlice(field)
			out = append(out, addr.String())
		case nft.InetProto:
			out = append(out, protocol(field[0]))
		case nft.InetService:
			out = append(out, fmt.Sprint(binary.BigEndian.Uint16(field)))
		case nft.Mark:
			out = append(out, fmt.Sprintf("%#x", binaryutil.NativeEndian.Uint32(field)))
		}
	}
	return strings.Join(out, " . ")
}

func protocol(n byte) string {
	switch n {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 132:
		return "sctp"
	}
	return fmt.Sprint(n)
}

func elementText(s *nft.Set, e nft.Element) string {
	text := "element " + s.Name + " " + fieldsText(s.Key, e.Key)
	if e.Timeout > 0 {
		text += " timeout " + e.Timeout.String()
	}
	if e.Verdict != nil {
		return text + " : " + verdictText(e.Verdict.Kind, e.Verdict.Chain)
	}
	if len(e.Value) > 0 {
		return text + " : " + fieldsText(s.Value, e.Value)
	}
	return text
}

func verdictText(kind expr.VerdictKind, chain string) string {
	texts := map[expr.VerdictKind]string{expr.VerdictAccept: "accept", expr.VerdictDrop: "drop", expr.VerdictJump: "jump " + chain,
		expr.VerdictGoto: "goto " + chain, expr.VerdictReturn: "return", expr.VerdictContinue: "continue"}
	return texts[kind]
}

func chainText(c *nft.Chain) string {
	text := "chain " + c.Name
	if c.Hook != nil {
		text += fmt.Sprintf(" { type %s hook %d priority %d }", c.Hook.Type, c.Hook.At, c.Hook.Priority)
	}
	text += "\n"
	for _, r := range c.Rules {
		var parts []string
		for _, e := range r {
			parts = append(parts, exprText(e))
		}
		text += "  " + strings.Join(parts, "; ") + "\n"
	}
	return text
}

// exprText writes one expression; registers by their numbers.
func exprText(e expr.Any) string {
	switch e := e.(type) {
	case *expr.Payload:
		return fmt.Sprintf("r%d = payload %d+%d@%d", e.DestRegister, e.Offset, e.Len, e.Base)
	case *expr.Meta:
		return fmt.Sprintf("r%d = meta %d", e.Register, e.Key)
	case *expr.Ct:
		return fmt.Sprintf("r%d = ct %d/%d", e.Register, e.Key, e.Direction)
	case *expr.Bitwise:
		return fmt.Sprintf("r%d = r%d & %x", e.DestRegister, e.SourceRegister, e.Mask)
	case *expr.Cmp:
		return fmt.Sprintf("r%d %s %x", e.Register, [...]string{"==", "!=", "<", "<=", ">", ">="}[e.Op], e.Data)
	case *expr.Lookup:
		if e.IsDestRegSet {
			return fmt.Sprintf("r%d = @%s[r%d]", e.DestRegister, e.SetName, e.SourceRegister)
		}
		return fmt.Sprintf("r%d in @%s", e.SourceRegister, e.SetName)
	case *expr.Dynset:
		return fmt.Sprintf("@%s[r%d] = r%d for %v", e.SetName, e.SrcRegKey, e.SrcRegData, e.Timeout)
	case *expr.Numgen:
		return fmt.Sprintf("r%d = %d + random mod %d", e.Register, e.Offset, e.Modulus)
	case *expr.Immediate:
		return fmt.Sprintf("r%d = %x", e.Register, e.Data)
	case *expr.NAT:
		return fmt.Sprintf("dnat r%d : r%d", e.RegAddrMin, e.RegProtoMin)
	case *expr.Masq:
		return "masquerade"
	case *expr.Reject:
		return fmt.Sprintf("reject %d/%d", e.Type, e.Code)
	case *expr.Fib:
		return fmt.Sprintf("r%d = fib daddr type", e.Register)
	case *expr.Verdict:
		return verdictText(e.Kind, e.Chain)
	}
	return fmt.Sprintf("%+v", e)
}

// describe writes a step for the error that it meets.
func describe(s nft.Step) string {
	switch s.Kind {
	case nft.AddTable:
		return "add table"
	case nft.DeleteTable:
		return "delete table"
	case nft.AddSet:
		return "add " + typeOf(s.Set)
	case nft.AddChain:
		return "add chain " + s.Chain.Name
	case nft.DeleteSet:
		return "delete set " + s.Set.Name
	case nft.DeleteChain:
		return "delete chain " + s.Chain.Name
	case nft.AddElements:
		return fmt.Sprintf("add %d elements to %s", len(s.Elements), s.Set.Name)
	}
	return fmt.Sprintf("delete %d elements from %s", len(s.Elements), s.Set.Name)
}
