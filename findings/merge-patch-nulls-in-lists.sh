#!/bin/sh
# evanphx/json-patch v4.13.0, the merge patch of kube-apiserver: nulls within lists vanish
#
# RFC 7386 puts a list of the patch in place of the old one as it is; only members of objects outside of lists
# are removed by null. The library also removes members that are null from objects within lists. And a patch
# that is null or a text, which by the RFC replaces the document, is refused, while a list is taken.
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
	out, err := jsonpatch.MergePatch([]byte(doc), []byte(patch))
	if err != nil {
		out = []byte("refused")
	}
	fmt.Printf("%s of %s: %s\n", patch, doc, out)
}

func main() {
	try(`{"a":[]}`, `{"a":[{"c":null,"d":1}]}`)
	try(`{"a":[]}`, `{"a":[null]}`)
	try(`{"a":1}`, `[1]`)
	try(`{"a":1}`, `null`)
	try(`{"a":1}`, `"x"`)
}
EOF
cat >want <<'EOF'
{"a":[{"c":null,"d":1}]} of {"a":[]}: {"a":[{"d":1}]}
{"a":[null]} of {"a":[]}: {"a":[null]}
[1] of {"a":1}: [1]
null of {"a":1}: refused
"x" of {"a":1}: refused
EOF
GOFLAGS=-mod=mod go run . >got
cat got
diff want got
