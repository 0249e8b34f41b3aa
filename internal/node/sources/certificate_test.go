package sources

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// certified returns a pod with a podCertificate source, and the source.
func certified(uid string) (*corev1.Pod, *corev1.PodCertificateProjection) {
	p, day := pod(uid), int32(86400)
	p.Spec.ServiceAccountName = "default"
	s := &corev1.PodCertificateProjection{SignerName: "example.com/mine", KeyType: "ED25519", MaxExpirationSeconds: &day, UserAnnotations: map[string]string{"example.com/a": "b"}}
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{PodCertificate: s}}}}}}
	return p, s
}

// settled makes the objects that a request names.
func (w *world) settled() {
	w.t.Helper()
	clienttest.Create(w.t, w.c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	clienttest.Create(w.t, w.c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}})
}

// requests returns the PodCertificateRequests that there are.
func (w *world) requests() []*certificatesv1.PodCertificateRequest {
	w.t.Helper()
	all, err := client.List[*certificatesv1.PodCertificateRequest](context.Background(), w.c, client.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b *certificatesv1.PodCertificateRequest) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	return all
}

// issueTo answers a request with a certificate that is good for a day.
func (w *world) issueTo(r *certificatesv1.PodCertificateRequest) {
	w.t.Helper()
	now := time.Now().Truncate(time.Second)
	csr, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		w.t.Fatal(err)
	}
	caKey, err := generate("ECDSAP256")
	if err != nil {
		w.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, csr.PublicKey, caKey)
	if err != nil {
		w.t.Fatal(err)
	}
	w.answer(r, func(s *certificatesv1.PodCertificateRequestStatus) {
		s.CertificateChain = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		s.NotBefore, s.BeginRefreshAt, s.NotAfter = at(now), at(now.Add(12*time.Hour)), at(now.Add(24*time.Hour))
		s.Conditions = []metav1.Condition{{Type: "Issued", Status: "True", Reason: "Issued", LastTransitionTime: metav1.NewTime(now)}}
	})
}

func at(t time.Time) *metav1.Time { m := metav1.NewTime(t); return &m }

func (w *world) answer(r *certificatesv1.PodCertificateRequest, change func(*certificatesv1.PodCertificateRequestStatus)) {
	w.t.Helper()
	_, err := client.Mutate(context.Background(), w.c, api.KeyOf(r), "status", func(r *certificatesv1.PodCertificateRequest) bool { change(&r.Status); return true })
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// matches reports whether a key belongs to a certificate chain.
func matches(t *testing.T, key, chain []byte) bool {
	t.Helper()
	k, _ := pem.Decode(key)
	c, rest := pem.Decode(chain)
	if k == nil || c == nil || len(rest) > 0 {
		t.Fatalf("key %s, chain %s", key, chain)
	}
	private, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return private.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.PublicKey)
}

func TestACertificateIsAskedForAndRefreshed(t *testing.T) {
	inBubble(t, func(w *world) {
		w.settled()
		p, s := certified("a")
		u := &user{uid: "a"}
		w.Use(u, p)
		get := func() (string, time.Time, error) {
			key, chain, renew, err := w.Certificate(context.Background(), p, "v", 0, s)
			if err == nil && !matches(t, key, chain) {
				t.Error("the key is not that of the certificate")
			}
			return string(chain), renew, err
		}
		for range 2 {
			if _, _, err := get(); err == nil || err.Error() != "credential bundle is not issued yet" {
				t.Fatalf("before the signer answered: %v", err)
			}
		}
		all := w.requests()
		if len(all) != 1 {
			t.Fatalf("%d requests, want one", len(all))
		}
		spec := all[0].Spec
		if spec.PodName != "a" || spec.PodUID != "a" || spec.NodeName != "n1" || spec.NodeUID == "" || spec.ServiceAccountName != "default" || spec.ServiceAccountUID == "" ||
			*spec.MaxExpirationSeconds != 86400 || spec.UnverifiedUserAnnotations["example.com/a"] != "b" || all[0].OwnerReferences[0].UID != "a" {
			t.Errorf("asked for %+v", all[0])
		}
		synctest.Wait()
		u.changes = nil
		w.issueTo(all[0])
		if len(u.changes) != 1 {
			t.Errorf("the pod heard %v of its certificate", u.changes)
		}
		begin := time.Now()
		first, renew, err := get()
		if wait := renew.Sub(begin); err != nil || wait < 12*time.Hour-time.Second || wait > 12*time.Hour+spread {
			t.Fatalf("looks again after %v, want half a day and a bit: %v", wait, err)
		}
		time.Sleep(time.Until(renew))
		if again, _, err := get(); err != nil || again != first || len(w.requests()) != 2 {
			t.Errorf("while the refresh is pending, %d requests: %v", len(w.requests()), err)
		}
		w.issueTo(w.requests()[1])
		if second, _, err := get(); err != nil || second == first {
			t.Errorf("after the refresh: %v, the same: %v", err, second == first)
		}
		w.Release(u)
		if len(w.credentials) != 0 {
			t.Error("the keys of a pod that was released are kept")
		}
	})
}

func TestACertificateThatIsRefused(t *testing.T) {
	for _, outcome := range []string{"Denied", "Failed"} {
		inBubble(t, func(w *world) {
			w.settled()
			p, s := certified("a")
			look := func() error { _, _, _, err := w.Certificate(context.Background(), p, "v", 0, s); return err }
			_ = look()
			w.answer(w.requests()[0], func(s *certificatesv1.PodCertificateRequestStatus) {
				s.Conditions = []metav1.Condition{{Type: outcome, Status: "True", Reason: "Because", Message: "no", LastTransitionTime: metav1.Now()}}
			})
			for range 2 {
				if err := look(); err == nil || !strings.Contains(err.Error(), `reason="Because", message="no"`) {
					t.Errorf("%s: %v", outcome, err)
				}
			}
			if len(w.warnings) != 1 || !strings.HasPrefix(w.warnings[0], outcome+" PodCertificateRequest default/req-") || len(w.requests()) != 1 {
				t.Errorf("%s: events %q, %d requests", outcome, w.warnings, len(w.requests()))
			}
		})
	}
}

func TestARequestThatIsGoneIsMadeAnew(t *testing.T) {
	inBubble(t, func(w *world) {
		w.settled()
		p, s := certified("a")
		look := func() { _, _, _, _ = w.Certificate(context.Background(), p, "v", 0, s) }
		look()
		r := w.requests()[0]
		if err := w.c.Delete(context.Background(), api.PodCertificateRequests, api.KeyOf(r), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		look()
		if n := len(w.requests()); n != 0 {
			t.Errorf("%d requests at once: who deletes them as they come would make the node's only work", n)
		}
		time.Sleep(remakeAfter)
		look()
		if n := len(w.requests()); n != 1 {
			t.Errorf("%d requests after a minute, want one", n)
		}
	})
}

func TestLateCertificatesAreEvents(t *testing.T) {
	begin := time.Unix(0, 0)
	c := credential{chain: []byte("x"), refresh: begin, notAfter: begin.Add(time.Hour), pending: &pendingRequest{made: begin}}
	var got []string
	for minutes := range 120 {
		if reason, _ := c.late(begin.Add(time.Duration(minutes) * time.Minute)); reason != "" {
			got = append(got, fmt.Sprint(minutes, " ", reason))
		}
	}
	if want := []string{"11 CertificateOverdueForRefresh", "61 CertificateExpired"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEveryKindOfKey(t *testing.T) {
	for _, kind := range []string{"RSA3072", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"} {
		key, stub, err := newKey(kind)
		if err != nil {
			t.Fatal(kind, err)
		}
		req, err := x509.ParseCertificateRequest(stub)
		if err != nil || req.CheckSignature() != nil || req.Subject.String() != "" {
			t.Errorf("%s: %v %v", kind, req, err)
		}
		if block, _ := pem.Decode(key); block == nil || block.Type != "PRIVATE KEY" {
			t.Errorf("%s: key %s", kind, key)
		}
	}
	if _, _, err := newKey("DSA"); err == nil {
		t.Error("an unknown kind has a key")
	}
}
