package api

import (
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const trustBundle = `
apiVersion: certificates.k8s.io/v1
kind: ClusterTrustBundle
metadata: {name: "example.com:mine:a"}
spec: {signerName: example.com/mine, trustBundle: nonsense}
`

// What is not certificates in PEM, or does not carry its signer's name, is refused.
func TestTrustBundlesAreChecked(t *testing.T) {
	for manifest, want := range map[string]string{
		trustBundle: `spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided`,
		strings.Replace(trustBundle, "example.com:mine:a", "other", 1): `metadata.name: Invalid value: "other": ClusterTrustBundle for signerName example.com/mine must be named with prefix example.com:mine:`,
		strings.Replace(trustBundle, "example.com/mine", "", 1):        `metadata.name: Invalid value: "example.com:mine:a": ClusterTrustBundle without signer name must not have ":" in its name`,
	} {
		b := read(t, manifest)
		if got := texts(ClusterTrustBundles.Validate(b)); !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%s\ngot %q, want %q", manifest, got, want)
		}
		if got := ClusterTrustBundles.Fields(b)["spec.signerName"]; got != b.(*certificatesv1.ClusterTrustBundle).Spec.SignerName {
			t.Errorf("the field spec.signerName is %q", got)
		}
	}
}

const podRequest = `
apiVersion: certificates.k8s.io/v1
kind: PodCertificateRequest
metadata: {name: a, namespace: b, resourceVersion: "1"}
spec: {signerName: example.com/mine, podName: p, podUID: u, serviceAccountName: s, serviceAccountUID: v, nodeName: n1, nodeUID: w}
status: {certificateChain: x}
`

func TestPodCertificateRequests(t *testing.T) {
	old := create[*certificatesv1.PodCertificateRequest](t, podRequest)
	if old.Spec.MaxExpirationSeconds == nil || *old.Spec.MaxExpirationSeconds != int32((24*time.Hour).Seconds()) {
		t.Errorf("maxExpirationSeconds %v, want a day", old.Spec.MaxExpirationSeconds)
	}
	if old.Status.CertificateChain != "" {
		t.Error("a request was created with a certificate")
	}
	set := PodCertificateRequests.Fields(old)
	if set["spec.nodeName"] != "n1" || set["spec.podName"] != "p" || set["spec.signerName"] != "example.com/mine" {
		t.Errorf("fields %v", set)
	}
	denied := metav1.Condition{Type: "Denied", Status: "True", Reason: "No", LastTransitionTime: metav1.Now()}
	change := func(r *certificatesv1.PodCertificateRequest) {
		r.Spec.PodName, r.Labels, r.Status.Conditions = "other", map[string]string{"a": "b"}, []metav1.Condition{denied}
	}
	got := update(t, old, "status", change)
	if got.Spec.PodName != "p" || len(got.Labels) > 0 || len(got.Status.Conditions) != 1 {
		t.Errorf("a write of status left %+v", got)
	}
	if errs := PodCertificateRequests.ValidateUpdate(got, old, "status"); len(errs) > 0 {
		t.Error(errs)
	}
	if got := update(t, old, "", change); len(got.Status.Conditions) != 0 {
		t.Error("a write of the request set its status")
	} else if errs := PodCertificateRequests.ValidateUpdate(got, old, ""); len(errs) == 0 {
		t.Error("a request names another pod now")
	}
}
