package pki

import (
	"crypto/x509"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// The front proxy's certificate proves nothing but that its bearer is a front proxy.
func TestFrontProxyHasAnAuthorityOfItsOwn(t *testing.T) {
	p := ensure(t, t.TempDir(), Params{})
	leaf := p.FrontProxy().Leaf
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: p.FrontProxyPool(), KeyUsages: usage}); err != nil || leaf.Subject.CommonName != FrontProxyName {
		t.Errorf("%s: %v", leaf.Subject, err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: p.Pool(), KeyUsages: usage}); err == nil {
		t.Error("the cluster's authority vouches for the front proxy")
	}
	if _, err := p.Admin().Leaf.Verify(x509.VerifyOptions{Roots: p.FrontProxyPool(), KeyUsages: usage}); err == nil {
		t.Error("an administrator could speak for others in headers")
	}
	srv := httptest.NewUnstartedServer(nil)
	srv.TLS = p.ServerTLS()
	srv.StartTLS()
	defer srv.Close()
	for _, der := range [][]byte{p.ca.cert.RawSubject, p.proxy.cert.RawSubject} { // clients send a certificate only if its authority is named
		named := false
		for _, s := range srv.TLS.ClientCAs.Subjects() { //nolint:staticcheck // not the system's pool
			named = named || string(s) == string(der)
		}
		if !named {
			t.Errorf("the handshake does not name %x", der)
		}
	}
}

// A data directory of a release that had no front proxy gets its authority at the next start, and servers that join one without it, too.
func TestFrontProxyOfOlderReleases(t *testing.T) {
	dir := t.TempDir()
	before := ensure(t, dir, Params{})
	for _, name := range []string{"front-proxy-ca.crt", "front-proxy-ca.key", "front-proxy-client.crt", "front-proxy-client.key"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	old, err := ReadShared(dir)
	if err != nil || len(old.Names()) != 3 || old.Missing() != "" {
		t.Fatalf("the older keys: %v %v", old.Names(), err)
	}
	joined := t.TempDir()
	if err := Install(joined, old); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{dir, joined} {
		after := ensure(t, at, Params{})
		if !after.CA().Equal(before.CA()) || after.FrontProxy().Leaf.CheckSignatureFrom(after.proxy.cert) != nil {
			t.Errorf("%s: another authority, or no front proxy", at)
		}
	}
	now, err := ReadShared(dir)
	if err != nil || len(now.Names()) != 5 {
		t.Errorf("shared from now on: %v %v", now.Names(), err)
	}
	further := t.TempDir()
	if err := Install(further, now); err != nil {
		t.Fatal(err)
	}
	if p := ensure(t, further, Params{}); !p.proxy.cert.Equal(ensure(t, dir, Params{}).proxy.cert) {
		t.Error("a server that joined has a front proxy authority of its own")
	}
	delete(now, "ca.key")
	if now.Missing() != "ca.key" || Install(t.TempDir(), now) == nil {
		t.Error("keys without ca.key were installed")
	}
}
