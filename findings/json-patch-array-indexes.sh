#!/bin/sh
# evanphx/json-patch v4.13.0, the JSON patch of kube-apiserver: array indexes and comparisons
#
# RFC 6901 allows "0" or digits without a leading zero as the index of an array. The library takes whatever Go's
# Atoi takes: leading zeros, a plus sign, and negative numbers that count from the end. RFC 6902 section 4.6
# says that numbers are equal if their values are; here 1 and 1.0 differ. An "add" without a value, which the
# RFC calls an error, adds null; a "test" for null passes where nothing is. "replace" may name the whole
# document, "add" may not.
#
# Needs Go and its module proxy. Fails if what is printed is no longer what is written below.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'EOF'
module finding

go 1.24

require gopkg.in/evanphx/json-patch.v4 v4.13.0
EOF
cat >main.go <<'EOF'
package main

import (
	"fmt"
	
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

func try(doc, patch string) {
	p, err := jsonpatch.DecodePatch([]byte(patch))
	if err != nil {
		panic(err)
	}
	out, err := p.Apply([]byte(doc))
	if err != nil {
		out = []byte("refused")
	}
	fmt.Printf("%s of %s: %s\n", patch, doc, out)
}

func main() {
	try(`{"a":[1,2,3]}`, `[{"op":"remove","path":"/a/01"}]`)
	try(`{"a":[1,2,3]}`, `[{"op":"replace","path":"/a/+1","value":9}]`)
	try(`{"a":[1,2,3]}`, `[{"op":"remove","path":"/a/-1"}]`)
	try(`{"a":1}`, `[{"op":"test","path":"/a","value":1.0}]`)
	try(`{"a":1}`, `[{"op":"test","path":"/b","value":null}]`)
	try(`{"a":1}`, `[{"op":"add","path":"/b"}]`)
	try(`{"a":1}`, `[{"op":"replace","path":"","value":{"z":1}}]`)
	try(`{"a":1}`, `[{"op":"add","path":"","value":{"z":1}}]`)
}
EOF
cat >want <<'EOF'
[{"op":"remove","path":"/a/01"}] of {"a":[1,2,3]}: {"a":[1,3]}
[{"op":"replace","path":"/a/+1","value":9}] of {"a":[1,2,3]}: {"a":[1,9,3]}
[{"op":"remove","path":"/a/-1"}] of {"a":[1,2,3]}: {"a":[1,2]}
[{"op":"test","path":"/a","value":1.0}] of {"a":1}: refused
[{"op":"test","path":"/b","value":null}] of {"a":1}: {"a":1}
[{"op":"add","path":"/b"}] of {"a":1}: {"a":1,"b":null}
[{"op":"replace","path":"","value":{"z":1}}] of {"a":1}: {"z":1}
[{"op":"add","path":"","value":{"z":1}}] of {"a":1}: refused
EOF
GOFLAGS=-mod=mod go run . >got
cat got
diff want got
