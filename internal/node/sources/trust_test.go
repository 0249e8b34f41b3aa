package sources

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client/clienttest"
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

// bundle makes a ClusterTrustBundle of example.com/mine, or of none where the name has no colon.
func (w *world) bundle(name, color string, pems ...string) {
	w.t.Helper()
	b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"color": color}},
		Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: strings.Join(pems, "")}}
	if strings.Contains(name, ":") {
		b.Spec.SignerName = "example.com/mine"
	}
	clienttest.Create(w.t, w.c, b)
}

func TestTrustAnchors(t *testing.T) {
	inBubble(t, func(w *world) {
		a, b, c := authority(t), authority(t), authority(t)
		w.bundle("single", "", a)
		w.bundle("example.com:mine:1", "red", a, b)
		w.bundle("example.com:mine:2", "red", b)
		w.bundle("example.com:mine:3", "blue", c)
		yes := true
		name, absent, signer, other := "single", "absent", "example.com/mine", "example.com/other"
		red, any, none := &metav1.LabelSelector{MatchLabels: map[string]string{"color": "red"}}, &metav1.LabelSelector{}, &metav1.LabelSelector{MatchLabels: map[string]string{"color": "green"}}
		for what, tc := range map[string]struct {
			p    corev1.ClusterTrustBundleProjection
			want []string
			err  string
		}{
			"by name":                 {corev1.ClusterTrustBundleProjection{Name: &name}, []string{a}, ""},
			"absent":                  {corev1.ClusterTrustBundleProjection{Name: &absent}, nil, `clustertrustbundle "absent" not found`},
			"absent, optional":        {corev1.ClusterTrustBundleProjection{Name: &absent, Optional: &yes}, nil, ""},
			"some of a signer's":      {corev1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: red}, []string{a, b}, ""},
			"all of a signer's":       {corev1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: any}, []string{a, b, c}, ""},
			"none of a signer's":      {corev1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: none}, nil, "matched zero ClusterTrustBundles"},
			"none, optional":          {corev1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: none, Optional: &yes}, nil, ""},
			"no selector is none":     {corev1.ClusterTrustBundleProjection{SignerName: &signer}, nil, "matched zero ClusterTrustBundles"},
			"a signer without any":    {corev1.ClusterTrustBundleProjection{SignerName: &other, LabelSelector: any}, nil, "matched zero ClusterTrustBundles"},
			"neither name nor signer": {corev1.ClusterTrustBundleProjection{}, nil, "requires either name or signerName"},
		} {
			got, err := w.TrustAnchors(context.Background(), &tc.p)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("%s: %v, want %q", what, err, tc.err)
			}
			if strings.Count(string(got), "BEGIN CERTIFICATE") != len(tc.want) {
				t.Errorf("%s: %s, want %d certificates", what, got, len(tc.want))
			}
			for _, one := range tc.want {
				if !strings.Contains(string(got), one) {
					t.Errorf("%s: %s is missing", what, one)
				}
			}
		}
	})
}

func TestPodsHearOfTrustBundles(t *testing.T) {
	inBubble(t, func(w *world) {
		p := pod("a")
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}, {ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}}}}}}
		u := &user{uid: "a"}
		w.Use(u, p)
		synctest.Wait()
		u.changes = nil
		w.bundle("single", "", authority(t))
		synctest.Wait()
		if len(u.changes) != 1 || u.changes[0] != "ClusterTrustBundle/" || len(w.watches) != 1 {
			t.Errorf("heard %v by %d watches", u.changes, len(w.watches))
		}
	})
}
