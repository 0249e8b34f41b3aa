#!/bin/sh
# kube-openapi 2026-07-21 (Kubernetes 1.37): what the formats of a CustomResourceDefinition accept
#
# A schema with "format" is checked by strfmt, which is wider, and here and there narrower, than the names say:
# "ipv4" takes an IPv6 address that holds an IPv4 one and leading zeros; "cidr" a prefix length of 08;
# "duration" both ISO 8601 and words, negative ones too; "mac" addresses without separators and of 20 octets;
# "email" a display name; "uri" whatever an HTTP request may name, so that "/x" is one. "hostname" is no
# address, ends without a dot, and its last label has two letters or more; "byte" is never empty; "date-time"
# has seconds, but not the leap second that RFC 3339 gives as its example.
#
# Needs Go and its module proxy. Fails if what is printed is no longer what is written below.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'EOF'
module finding

go 1.24

require k8s.io/kube-openapi v0.0.0-20260721132016-d427ff9ee9ad
EOF
cat >main.go <<'EOF'
package main

import (
	"fmt"
	
	"k8s.io/kube-openapi/pkg/validation/strfmt"
)

func try(format string, values ...string) {
	fmt.Printf("%s:", format)
	for _, v := range values {
		fmt.Printf(" %q %v", v, strfmt.Default.Validates(format, v))
	}
	fmt.Println()
}

func main() {
	try("ipv4", "1.2.3.4", "::ffff:1.2.3.4", "01.2.3.4")
	try("cidr", "10.0.0.0/8", "10.0.0.0/08")
	try("duration", "1h", "P1D", "1 hour 2 min", "-1h", "1year")
	try("mac", "00:00:5e:00:53:01", "00005e005301", "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01")
	try("email", "a@b.c", "A <a@b.c>")
	try("uri", "http://x", "/x", "//x", "x")
	try("hostname", "example.com", "example.com.", "a.b", "1.2.3.4")
	try("byte", "aGk=", "aGk", "")
	try("date-time", "1990-12-31T23:59:59Z", "1990-12-31T23:59:60Z", "1990-12-31T23:59Z")
}
EOF
cat >want <<'EOF'
ipv4: "1.2.3.4" true "::ffff:1.2.3.4" true "01.2.3.4" true
cidr: "10.0.0.0/8" true "10.0.0.0/08" true
duration: "1h" true "P1D" true "1 hour 2 min" true "-1h" true "1year" false
mac: "00:00:5e:00:53:01" true "00005e005301" true "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01" true
email: "a@b.c" true "A <a@b.c>" true
uri: "http://x" true "/x" true "//x" true "x" false
hostname: "example.com" true "example.com." false "a.b" false "1.2.3.4" false
byte: "aGk=" true "aGk" false "" false
date-time: "1990-12-31T23:59:59Z" true "1990-12-31T23:59:60Z" false "1990-12-31T23:59Z" false
EOF
GOFLAGS=-mod=mod go run . >got
cat got
diff want got
