package podcertificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func request(t *testing.T, name string) *certificatesv1.PodCertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: certificatesv1.PodCertificateRequestSpec{SignerName: "example.com/mine", PodName: "p", PodUID: "u", ServiceAccountName: "s", ServiceAccountUID: "v",
			NodeName: "n", NodeUID: "w", StubPKCS10Request: stub},
	}
}

func TestRequestsGoAfterAQuarterOfAnHour(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		ct.Make(c, request(t, "first"))
		c.Pass(10 * time.Minute)
		ct.Make(c, request(t, "second"))
		c.Pass(5*time.Minute - 2*time.Second)
		if ct.Gone[*certificatesv1.PodCertificateRequest](c, "default", "first") {
			t.Error("a request went before its time")
		}
		c.Pass(4 * time.Second)
		if !ct.Gone[*certificatesv1.PodCertificateRequest](c, "default", "first") {
			t.Error("a request is there after fifteen minutes")
		}
		if ct.Gone[*certificatesv1.PodCertificateRequest](c, "default", "second") {
			t.Error("the second went with the first")
		}
		c.Pass(10 * time.Minute)
		if !ct.Gone[*certificatesv1.PodCertificateRequest](c, "default", "second") {
			t.Error("the second is there after fifteen minutes")
		}
	})
}
