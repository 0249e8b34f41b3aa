package authn

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/asn1"
	"k8s.io/apiserver/pkg/authentication/user"
)

func TestClientCert(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	cert := &x509.Certificate{Raw: []byte("x"), Subject: pkix.Name{CommonName: "jane", Organization: []string{"devs", "ops"}}, NotAfter: now.Add(time.Hour)}
	tests := []struct {
		name   string
		state  *tls.ConnectionState
		at     time.Time
		groups []string
		err    bool
	}{
		{"no TLS", nil, now, nil, false},
		{"no certificate", &tls.ConnectionState{}, now, nil, false},
		{"not verified", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, now, nil, false},
		{"good", verified(cert), now, []string{"devs", "ops", "system:authenticated"}, false},
		{"expired since the handshake", verified(cert), now.Add(2 * time.Hour), nil, true},
		{"for nobody", verified(&x509.Certificate{NotAfter: now.Add(time.Hour)}), now, nil, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := NewClientCert(func() time.Time { return tc.at })
			for range 2 { // the second time from memory
				who, ok, err := c.Authenticate(&http.Request{TLS: tc.state})
				if ok != (tc.groups != nil) || (err != nil) != tc.err {
					t.Fatalf("ok %v, error %v", ok, err)
				}
				if ok && (who.GetName() != "jane" || !slices.Equal(who.GetGroups(), tc.groups)) {
					t.Errorf("user %+v", who)
				}
			}
		})
	}
	if !slices.Equal(cert.Subject.Organization, []string{"devs", "ops"}) {
		t.Error("the certificate was changed")
	}
}

func TestClientCertUID(t *testing.T) {
	name := func(value any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.X509UID(), Value: value}
	}
	other := pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 5}, Value: "serial"}
	for _, tc := range []struct {
		name  string
		names []pkix.AttributeTypeAndValue
		uid   string
		err   bool
	}{
		{"none", []pkix.AttributeTypeAndValue{other}, "", false},
		{"one", []pkix.AttributeTypeAndValue{other, name("7")}, "7", false},
		{"two", []pkix.AttributeTypeAndValue{name("7"), name("7")}, "", true},
		{"empty", []pkix.AttributeTypeAndValue{name("")}, "", true},
		{"a number", []pkix.AttributeTypeAndValue{name(7)}, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert := &x509.Certificate{Raw: []byte("x"), Subject: pkix.Name{CommonName: "jane", Names: tc.names}, NotAfter: time.Now().Add(time.Hour)}
			who, ok, err := NewClientCert(nil).Authenticate(&http.Request{TLS: verified(cert)})
			if ok == tc.err || (err != nil) != tc.err || ok && who.GetUID() != tc.uid {
				t.Errorf("user %+v, %v, error %v", who, ok, err)
			}
		})
	}
}

func verified(c *x509.Certificate) *tls.ConnectionState {
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}
}

type fixed struct {
	name string
	err  error
}

func (f fixed) Authenticate(*http.Request) (user.Info, bool, error) {
	return &user.DefaultInfo{Name: f.name}, f.name != "", f.err
}

func TestUnion(t *testing.T) {
	bad := errors.New("bad token")
	tests := []struct {
		name string
		u    Union
		want string
		err  error
	}{
		{"nobody", Union{fixed{}, fixed{}}, "", nil},
		{"the first that knows", Union{fixed{}, fixed{name: "a"}, fixed{name: "b"}}, "a", nil},
		{"good beside bad", Union{fixed{err: bad}, fixed{name: "b"}}, "b", nil},
		{"bad only", Union{fixed{}, fixed{err: bad}}, "", bad},
	}
	for _, tc := range tests {
		who, ok, err := tc.u.Authenticate(nil)
		if ok != (tc.want != "") || !errors.Is(err, tc.err) || ok && who.GetName() != tc.want {
			t.Errorf("%s: %v %v %v", tc.name, who, ok, err)
		}
	}
}

func TestBearerToken(t *testing.T) {
	for header, want := range map[string]string{
		"": "", "Bearer": "", "Bearer ": "", "Basic abc": "", "Bearer abc": "abc", "bearer  abc ": "abc", "Bearerabc": "",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", header)
		if got, ok := BearerToken(r); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", header, got, ok)
		}
	}
}
