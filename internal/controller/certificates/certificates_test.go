package certificates

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/authz"
)

func request(t *testing.T, tmpl x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

var created = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func nodeRequest(t *testing.T, name string) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "r", CreationTimestamp: metav1.NewTime(created)},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    request(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: []string{"system:nodes"}}}),
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
			Username:   "system:bootstrap:abcdef",
		},
	}
}

func with(t certificatesv1.RequestConditionType) func(*certificatesv1.CertificateSigningRequest) {
	return func(r *certificatesv1.CertificateSigningRequest) {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: t, Status: corev1.ConditionTrue, LastUpdateTime: metav1.NewTime(created.Add(time.Minute)),
		})
	}
}

func TestPlan(t *testing.T) {
	type change = func(*certificatesv1.CertificateSigningRequest)
	for _, tc := range []struct {
		name    string
		changes []change
		after   time.Duration // since its creation
		want    string
	}{
		{"a machine that bootstraps", nil, 0, "approve nodeclient"},
		{"a node renews", []change{func(r *certificatesv1.CertificateSigningRequest) { r.Spec.Username = "system:node:a" }}, 0, "approve selfnodeclient"},
		{"approved", []change{with(certificatesv1.CertificateApproved)}, 0, "issue"},
		{"denied", []change{with(certificatesv1.CertificateApproved), with(certificatesv1.CertificateDenied)}, 0, ""},
		{"issued", []change{with(certificatesv1.CertificateApproved), func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = []byte("x") }}, 0, ""},
		{"another signer", []change{with(certificatesv1.CertificateApproved), func(r *certificatesv1.CertificateSigningRequest) { r.Spec.SignerName = "example.com/mine" }}, 0, ""},
		{"a person's", []change{func(r *certificatesv1.CertificateSigningRequest) {
			r.Spec.SignerName = certificatesv1.KubeAPIServerClientSignerName
		}}, 0, ""},
		{"another group", []change{func(r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Request = request(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes", "system:masters"}}})
		}}, 0, ""},
		{"another group, approved by mistake", []change{with(certificatesv1.CertificateApproved), func(r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Request = request(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a", Organization: []string{"system:masters"}}})
		}}, 0, "fail"},
		{"a server's names", []change{func(r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Request = request(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes"}}, DNSNames: []string{"kubernetes"}})
		}}, 0, ""},
		{"no node", []change{func(r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Request = request(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:nodes"}}})
		}}, 0, ""},
		{"approved and not signed for a day", []change{with(certificatesv1.CertificateApproved), func(r *certificatesv1.CertificateSigningRequest) { r.Spec.SignerName = "example.com/mine" }}, 24*time.Hour + 2*time.Minute, "remove"},
		{"approved and not signed for an hour", []change{with(certificatesv1.CertificateApproved), func(r *certificatesv1.CertificateSigningRequest) { r.Spec.SignerName = "example.com/mine" }}, 2 * time.Hour, ""},
		{"issued an hour ago", []change{with(certificatesv1.CertificateApproved), func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = []byte("x") }}, 61 * time.Minute, "remove"},
		{"a server of the cluster, approved by mistake", []change{with(certificatesv1.CertificateApproved), func(r *certificatesv1.CertificateSigningRequest) {
			r.Spec.SignerName = certificatesv1.KubeAPIServerClientSignerName
			r.Spec.Request = request(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a", Organization: []string{"knarr:servers"}}})
		}}, 0, "fail"},
		{"to serve with", []change{func(r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Usages = append(r.Spec.Usages, certificatesv1.UsageServerAuth)
		}}, 0, ""},
		{"pending for a day", nil, 24 * time.Hour, "remove"},
		{"decided an hour ago", []change{with(certificatesv1.CertificateDenied)}, 61 * time.Minute, "remove"},
	} {
		r := nodeRequest(t, "system:node:a")
		for _, c := range tc.changes {
			c(r)
		}
		p := plan(r, created.Add(tc.after))
		got := ""
		switch {
		case p.remove:
			got = "remove"
		case p.approve != "":
			got = "approve " + p.approve
		case p.fail != "":
			got = "fail"
		case p.issue:
			got = "issue"
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q (%s)", tc.name, got, tc.want, p.fail)
		}
		if !p.remove && p.after <= 0 {
			t.Errorf("%s: never looked at again", tc.name)
		}
	}
}

func TestSigners(t *testing.T) {
	type usages = []certificatesv1.KeyUsage
	node := x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes"}}}
	serving := node
	serving.DNSNames = []string{"a.example"}
	mail := serving
	mail.EmailAddresses = []string{"a@a.example"}
	other := serving
	other.Subject.CommonName = "a"
	for _, tc := range []struct {
		name, signer string
		usages       usages
		request      x509.CertificateRequest
		fails        string // "" is signed
	}{
		{"a node's server", certificatesv1.KubeletServingSignerName, usages{"digital signature", "key encipherment", "server auth"}, serving, ""},
		{"one with a key that cannot encipher", certificatesv1.KubeletServingSignerName, usages{"digital signature", "server auth"}, serving, ""},
		{"one that has no name", certificatesv1.KubeletServingSignerName, usages{"digital signature", "server auth"}, node, "DNS or IP subjectAltName is required"},
		{"one with a mail address", certificatesv1.KubeletServingSignerName, usages{"digital signature", "server auth"}, mail, "Email and URI"},
		{"one that is no node", certificatesv1.KubeletServingSignerName, usages{"digital signature", "server auth"}, other, "subject common name"},
		{"one that would be a client, too", certificatesv1.KubeletServingSignerName, usages{"digital signature", "server auth", "client auth"}, serving, "usages did not match"},
		{"one that cannot sign", certificatesv1.KubeletServingSignerName, usages{"server auth"}, serving, "usages did not match"},
		{"a client", certificatesv1.KubeAPIServerClientSignerName, usages{"client auth"}, x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, ""},
		{"a client that would serve", certificatesv1.KubeAPIServerClientSignerName, usages{"client auth", "server auth"}, node, "invalid usage for client certificate: server auth"},
		{"a client that could not be one", certificatesv1.KubeAPIServerClientSignerName, usages{"digital signature"}, node, "missing required usage for client certificate: client auth"},
		{"anything", "kubernetes.io/legacy-unknown", usages{"code signing", "timestamping"}, mail, ""},
		{"anything for what nobody knows", "kubernetes.io/legacy-unknown", usages{"juggling"}, mail, `unrecognized usage: "juggling"`},
	} {
		r := nodeRequest(t, "system:node:a")
		r.Spec.SignerName, r.Spec.Usages, r.Spec.Request = tc.signer, tc.usages, request(t, tc.request)
		if p := plan(r, created); p.approve != "" || p.issue || p.fail != "" {
			t.Errorf("%s: a person decides, not %+v", tc.name, p)
		}
		with(certificatesv1.CertificateApproved)(r)
		p := plan(r, created)
		if p.issue != (tc.fails == "") || !strings.HasPrefix(p.fail, tc.fails) {
			t.Errorf("%s: issued %v, fails for %q, want %q", tc.name, p.issue, p.fail, tc.fails)
		}
	}
	got, _ := usagesOf(usages{"code signing", "s/mime", "email protection", "signing", "key agreement"})
	if got.key != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement || !slices.Equal(got.extended, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageEmailProtection}) {
		t.Errorf("usages %+v", got)
	}
}

type allow []string

func (a allow) Authorize(_ context.Context, at *authz.Attributes) (authz.Decision, string, error) {
	if slices.Contains(a, at.Subresource) {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

func TestApprovedAndSignedOnlyForWhomItMay(t *testing.T) {
	for _, tc := range []struct {
		name string
		may  allow
		want string
	}{{"allowed", allow{"nodeclient"}, certificate}, {"not allowed", allow{"selfnodeclient"}, ""}} {
		c := clienttest.New(t)
		r := nodeRequest(t, "system:node:a")
		r.CreationTimestamp = metav1.Time{}
		clienttest.Create(t, c, r)
		rec := New(c, tc.may, func(request []byte, usage x509.KeyUsage, extended []x509.ExtKeyUsage, life time.Duration) ([]byte, error) {
			if !bytes.Equal(request, r.Spec.Request) || usage != x509.KeyUsageDigitalSignature || !slices.Equal(extended, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || life != longest {
				return nil, errors.New("not what was asked for")
			}
			return []byte(certificate), nil
		}).Reconciler
		for range 3 {
			if _, err := rec.Reconcile(t.Context(), api.Key{Name: "r"}); err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
		}
		out, err := client.Get[*certificatesv1.CertificateSigningRequest](t.Context(), c, api.Key{Name: "r"})
		if err != nil || string(out.Status.Certificate) != tc.want {
			t.Errorf("%s: %v %+v", tc.name, err, out.Status)
		}
	}
}

// certificate is what the fake signer gives; validation wants a real one.
var certificate = func() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "system:node:a"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}()
