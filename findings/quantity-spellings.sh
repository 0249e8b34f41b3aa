#!/bin/sh
# apimachinery v0.37.2: quantities that are equal and do not say so
#
# A quantity is documented to be kept in canonical form. Where a text has no suffix and is not scaled, it is
# kept as it was written: with a plus sign, leading zeros or a last dot. A dot alone is zero. "1E" is 10^18,
# "1E3" is 1000. MilliValue of what fits an int64 wraps around without an error, and so does Value of what does
# not.
#
# Needs Go and its module proxy. Fails if what is printed is no longer what is written below.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'EOF'
module finding

go 1.24

require k8s.io/apimachinery v0.37.2
EOF
cat >main.go <<'EOF'
package main

import (
	"fmt"
	
	"k8s.io/apimachinery/pkg/api/resource"
)

func main() {
	for _, s := range []string{"12", "+12", "00012", "12.", "12.0", ".", "1E", "1E3", "9223372036854775807", "9223372036854775808"} {
		q := resource.MustParse(s)
		fmt.Printf("%s: text %s, value %d, milli %d\n", s, q.String(), q.Value(), q.MilliValue())
	}
}
EOF
cat >want <<'EOF'
12: text 12, value 12, milli 12000
+12: text +12, value 12, milli 12000
00012: text 00012, value 12, milli 12000
12.: text 12., value 12, milli 12000
12.0: text 12, value 12, milli 12000
.: text 0, value 0, milli 0
1E: text 1E, value 1000000000000000000, milli 0
1E3: text 1E3, value 1000, milli 1000000
9223372036854775807: text 9223372036854775807, value 9223372036854775807, milli -1000
9223372036854775808: text 9223372036854775808, value -9223372036854775808, milli 0
EOF
GOFLAGS=-mod=mod go run . >got
cat got
diff want got
