package plugins

import (
	"context"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// holding allows one verb on one signer.
type holding struct{ verb, signer string }

func (h holding) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.IsResource && a.Group == "certificates.k8s.io" && a.Resource == "signers" && a.Verb == h.verb && a.Name == h.signer {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

// change returns the update of old to obj by jane.
func change(old, obj api.Object, sub string) *admission.Attributes {
	a := create(obj)
	a.Operation, a.Old, a.Subresource, a.User = admission.Update, old, sub, &user.DefaultInfo{Name: "jane"}
	return a
}

func TestOnlyWhoAttestsPublishesATrustBundle(t *testing.T) {
	bundle := func(signer, pem string, finalizers ...string) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "b", Finalizers: finalizers},
			Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: pem}}
	}
	by := func(a *admission.Attributes) *admission.Attributes {
		a.User = &user.DefaultInfo{Name: "jane"}
		return a
	}
	const no = `user not permitted to attest for signerName "example.com/mine"`
	for name, tc := range map[string]struct {
		a     *admission.Attributes
		holds holding
		says  string
	}{
		"new":                         {by(create(bundle("example.com/mine", "x"))), holding{"attest", "example.com/mine"}, ""},
		"of the whole domain":         {by(create(bundle("example.com/mine", "x"))), holding{"attest", "example.com/*"}, ""},
		"new, by who may only sign":   {by(create(bundle("example.com/mine", "x"))), holding{"sign", "example.com/mine"}, no},
		"new, by who may another":     {by(create(bundle("example.com/mine", "x"))), holding{"attest", "example.com/other"}, no},
		"of no signer":                {by(create(bundle("", "x"))), holding{}, ""},
		"changed":                     {change(bundle("example.com/mine", "x"), bundle("example.com/mine", "y"), ""), holding{}, no},
		"written back":                {change(bundle("example.com/mine", "x"), bundle("example.com/mine", "x"), ""), holding{}, ""},
		"a finalizer that is done":    {change(bundle("example.com/mine", "x", "f"), bundle("example.com/mine", "x"), ""), holding{}, ""},
		"removed, which RBAC decides": {&admission.Attributes{Operation: admission.Delete, Resource: api.ClusterTrustBundles, Old: bundle("example.com/mine", "x"), User: &user.DefaultInfo{}}, holding{}, ""},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, run(Certificates{tc.holds}, tc.a), tc.says) })
	}
}

func TestOnlySignersAnswerPodCertificateRequests(t *testing.T) {
	old := &certificatesv1.PodCertificateRequest{ObjectMeta: meta("shop", "r"), Spec: certificatesv1.PodCertificateRequestSpec{SignerName: "example.com/mine"}}
	issued := old.DeepCopy()
	issued.Status.CertificateChain = "x"
	const no = `PodCertificateRequest.certificates.k8s.io "r" is invalid: spec.signerName: Forbidden: User "jane" is not permitted to "sign" for signer "example.com/mine"`
	wantError(t, run(Certificates{holding{"sign", "example.com/mine"}}, change(old, issued, "status")), "")
	wantError(t, run(Certificates{holding{"sign", "example.com/*"}}, change(old, issued, "status")), "")
	wantError(t, run(Certificates{holding{"attest", "example.com/mine"}}, change(old, issued, "status")), no)
	wantError(t, run(Certificates{holding{}}, change(old, old.DeepCopy(), "status")), "")
}
