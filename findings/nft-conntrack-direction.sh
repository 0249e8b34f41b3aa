#!/bin/sh
# google/nftables v0.3.0 and the kernel's nf_tables: which direction of a connection a rule reads
#
# An expression that reads an address or a port of a connection (ct original|reply proto-src ...) names the direction in
# an attribute which the kernel takes as one byte. The library writes four bytes in network order, of which the kernel
# reads the first: Direction 1, the reply's as in linux/netfilter/nf_conntrack_tuple_common.h, arrives as 0, the
# original's. No call fails; the rule judges by the other end of the connection. 1 in the highest byte is the reply's.
#
# Needs Go and its module proxy, root, nft (Debian's nftables) and unshare. It works in a network namespace of its own.
# Fails if what is printed is no longer what is written below.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'EOF'
module finding

go 1.24

require github.com/google/nftables v0.3.0
EOF
cat >main.go <<'EOF'
package main

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

func main() {
	c := &nftables.Conn{}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "finding"})
	chain := c.AddChain(&nftables.Chain{Table: table, Name: "rules"})
	for _, direction := range []uint32{0, 1, 1 << 24} {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeyPROTOSRC, Register: 1, Direction: direction},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 80}},
		}})
	}
	if err := c.Flush(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	out, err := exec.Command("nft", "list", "chain", "ip", "finding", "rules").CombinedOutput()
	fmt.Print(string(out))
	if err != nil {
		os.Exit(1)
	}
}
EOF
cat >want <<'EOF'
ct original proto-src
ct original proto-src
ct reply proto-src
EOF
GOFLAGS=-mod=mod go build -o finding .
unshare --net ./finding >listed
grep -o 'ct [a-z]* proto-src' listed >got
cat got
diff want got
