#!/bin/sh
# miekg/dns v1.1.73: records in text that are taken
#
# A record without data is read as one with an empty address rather than refused. RFC 9460 section 2.2 forbids
# that a service parameter comes twice; it is kept twice. A name may hold spaces and tabs, and an escape of a
# number above 255.
#
# Needs Go and its module proxy. Fails if what is printed is no longer what is written below.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'EOF'
module finding

go 1.24

require github.com/miekg/dns v1.1.73
EOF
cat >main.go <<'EOF'
package main

import (
	"fmt"
	
	"github.com/miekg/dns"
)

func main() {
	for _, s := range []string{"a. 60 A", "a. 60 SVCB 1 . port=1 port=2", "a. 60 A 01.2.3.4", "a. 60 A ::ffff:1.2.3.4"} {
		r, err := dns.NewRR(s)
		if err != nil {
			fmt.Printf("%q: refused\n", s)
			continue
		}
		fmt.Printf("%q: %q\n", s, r.String())
	}
	for _, s := range []string{"a b", "a\tb", `\256.b`, "a..b"} {
		labels, ok := dns.IsDomainName(s)
		fmt.Printf("%q: %d labels, a name: %v\n", s, labels, ok)
	}
}
EOF
cat >want <<'EOF'
"a. 60 A": "a.\t60\tIN\tA\t"
"a. 60 SVCB 1 . port=1 port=2": "a.\t60\tIN\tSVCB\t1 . port=\"1\" port=\"2\""
"a. 60 A 01.2.3.4": refused
"a. 60 A ::ffff:1.2.3.4": refused
"a b": 1 labels, a name: true
"a\tb": 1 labels, a name: true
"\\256.b": 2 labels, a name: true
"a..b": 1 labels, a name: false
EOF
GOFLAGS=-mod=mod go run . >got
cat got
diff want got
