package trustbundle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// authority returns the certificate of a new authority.
func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func names(c *ct.Cluster) (out []string) {
	for _, b := range ct.All[*certificatesv1.ClusterTrustBundle](c, "") {
		out = append(out, b.Name)
	}
	slices.Sort(out)
	return out
}

func TestPublishedAndRestored(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ca, other := authority(t), authority(t)
		c.Start(New(c.Client, []byte(ca)))
		c.Settle()
		name := bundleName(ca)
		if got := names(c); !slices.Equal(got, []string{name}) {
			t.Fatalf("bundles %v, want %s", got, name)
		}
		ct.Change(c, "", name, "", func(b *certificatesv1.ClusterTrustBundle) { b.Spec.TrustBundle = other })
		c.Settle()
		if b := ct.Get[*certificatesv1.ClusterTrustBundle](c, "", name); b.Spec.TrustBundle != ca || b.Spec.SignerName != signerName {
			t.Errorf("not put right: %+v", b.Spec)
		}
		ct.Delete[*certificatesv1.ClusterTrustBundle](c, "", name, metav1.DeleteOptions{})
		c.Settle()
		ct.Get[*certificatesv1.ClusterTrustBundle](c, "", name)
	})
}

func TestOldBundlesGo(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		old, now := authority(t), authority(t)
		for name, signer := range map[string]string{"mine": "", "example.com:theirs:a": "example.com/theirs"} {
			ct.Make(c, &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: old}})
		}
		stop := c.Start(New(c.Client, []byte(old)))
		c.Settle()
		stop()
		c.Start(New(c.Client, []byte(now)))
		c.Settle()
		want := []string{"example.com:theirs:a", bundleName(now), "mine"}
		if got := names(c); !slices.Equal(got, want) {
			t.Errorf("bundles %v, want %v", got, want)
		}
	})
}
