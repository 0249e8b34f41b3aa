package authn

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/pki"
)

func headersOf(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestRequestHeader(t *testing.T) {
	p, err := pki.Ensure(t.TempDir(), pki.Params{})
	if err != nil {
		t.Fatal(err)
	}
	jane := headersOf(RemoteUser, "jane", RemoteUID, "7", RemoteGroup, "devs", RemoteGroup, "ops", "x-remote-extra-Example.com%2fscopes", "a", "X-Remote-Extra-Example.com%2fscopes", "b")
	front, admin := p.FrontProxy().Leaf, p.Admin().Leaf
	for _, tc := range []struct {
		name    string
		cert    *x509.Certificate
		header  http.Header
		allowed string
		at      time.Time
		want    *user.DefaultInfo
		err     string
	}{
		{"a front proxy", front, jane, pki.FrontProxyName, time.Now(), &user.DefaultInfo{Name: "jane", UID: "7",
			Groups: []string{"devs", "ops", user.AllAuthenticated}, Extra: map[string][]string{"example.com/scopes": {"a", "b"}}}, ""},
		{"no user", front, headersOf(RemoteGroup, "devs"), pki.FrontProxyName, time.Now(), nil, ""},
		{"no certificate", nil, jane, pki.FrontProxyName, time.Now(), nil, ""},
		{"an administrator", admin, jane, pki.FrontProxyName, time.Now(), nil, "unknown authority"},
		{"another name", front, jane, "somebody", time.Now(), nil, "cn=front-proxy-client is not in the allowed list"},
		{"expired", front, jane, pki.FrontProxyName, time.Now().AddDate(2, 0, 0), nil, "expired"},
	} {
		h := NewRequestHeader(p.FrontProxyPool(), []string{tc.allowed}, func() time.Time { return tc.at })
		for range 2 { // the second time from memory
			r := &http.Request{Header: tc.header.Clone(), TLS: &tls.ConnectionState{}}
			if tc.cert != nil {
				r.TLS.PeerCertificates = []*x509.Certificate{tc.cert}
			}
			who, ok, err := h.Authenticate(r)
			if ok != (tc.want != nil) || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v %v %v", tc.name, who, ok, err)
			}
			if ok && !reflect.DeepEqual(who, tc.want) {
				t.Errorf("%s: %+v", tc.name, who)
			}
		}
	}
	jane.Set("X-Remote-Control", "a client's own")
	ClearRemote(jane)
	if len(jane) != 1 {
		t.Errorf("what is passed on: %v", jane)
	}
}
