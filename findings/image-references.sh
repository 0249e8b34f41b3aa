#!/bin/sh
# distribution/reference v0.6.0 and go-containerregistry v0.22.1: two readings of an image name
#
# containerd and the kubelet read image names with the first, tools that build and copy images often with the
# second. "Foo/a" is a registry named Foo to the one and no name to the other; two dots or an underscore before
# a hyphen in a repository, and a registry that begins with a hyphen, are the other way round. Of
# NAME:TAG@DIGEST the second forgets the tag. Docker Hub is docker.io to the one and index.docker.io to the
# other.
#
# Needs Go and its module proxy. Fails if what is printed is no longer what is written below.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'EOF'
module finding

go 1.24

require github.com/distribution/reference v0.6.0
require github.com/google/go-containerregistry v0.22.1
EOF
cat >main.go <<'EOF'
package main

import (
	"fmt"
	"strings"
	
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
)

func main() {
	digest := "@sha256:" + strings.Repeat("0", 64)
	for _, s := range []string{"a", "Foo/a", "LOCALHOST/a", "x.y/a..b", "x.y/a_-b", "-x.y/a", "x.y/a:t" + digest} {
		one, two := "refused", "refused"
		if r, err := reference.ParseNormalizedNamed(s); err == nil {
			one = reference.TagNameOnly(r).String()
		}
		if r, err := name.ParseReference(s); err == nil {
			two = r.Name()
		}
		short := strings.NewReplacer(digest, "@sha256:0...")
		fmt.Printf("%s: %s, %s\n", short.Replace(s), short.Replace(one), short.Replace(two))
	}
}
EOF
cat >want <<'EOF'
a: docker.io/library/a:latest, index.docker.io/library/a:latest
Foo/a: Foo/a:latest, refused
LOCALHOST/a: LOCALHOST/a:latest, refused
x.y/a..b: refused, x.y/a..b:latest
x.y/a_-b: refused, x.y/a_-b:latest
-x.y/a: refused, -x.y/a:latest
x.y/a:t@sha256:0...: x.y/a:t@sha256:0..., x.y/a@sha256:0...
EOF
GOFLAGS=-mod=mod go run . >got
cat got
diff want got
