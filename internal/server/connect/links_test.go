package connect

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
)

// Links of a page that came through /api/.../proxy lead through it again, as far as they mean the pod.
func TestMoveLinks(t *testing.T) {
	const prefix = "/api/v1/namespaces/a/pods/b/proxy"
	at := &url.URL{Scheme: "http", Host: "10.1.2.3:80", Path: "/dir/"}
	for in, want := range map[string]string{
		`<a href="/x?q=1#f">x</a>`:                     `<a href="` + prefix + `/x?q=1#f">x</a>`,
		`<a href="/">x</a>`:                            `<a href="` + prefix + `/">x</a>`,
		`<img src='http://10.1.2.3:80/i.png' alt="/">`: `<img src="` + prefix + `/i.png" alt="/">`,
		`<form action="/post" data-x="/y"></form>`:     `<form action="` + prefix + `/post" data-x="/y"></form>`,
		`<a href="relative">x</a>`:                     `<a href="relative">x</a>`,
		`<a href="http://example.com/x">x</a>`:         `<a href="http://example.com/x">x</a>`,
		`<a href="mailto:a@b">x</a>`:                   `<a href="mailto:a@b">x</a>`,
		`<a href="` + prefix + `/x">x</a>`:             `<a href="` + prefix + `/x">x</a>`,
		`<A HREF=rel  ID=1>&amp; text<!-- /c --></A>`:  `<A HREF=rel  ID=1>&amp; text<!-- /c --></A>`,
		`<script>var a = "<a href='/x'>"</script>`:     `<script>var a = "<a href='/x'>"</script>`,
	} {
		var got bytes.Buffer
		if err := moveLinksIn(&got, strings.NewReader(in), at, prefix); err != nil || got.String() != want {
			t.Errorf("%s\n got %s %v\nwant %s", in, got.String(), err, want)
		}
	}
}
