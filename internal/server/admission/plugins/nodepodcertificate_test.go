package plugins

import (
	"context"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// anySigner allows certificates of example.com/other for pods of account shop/till, whatever their volumes name.
type anySigner struct{}

func (anySigner) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.Verb == verbPodCertificateSigner && a.Group == "" && a.Resource == "example.com:other" && a.Namespace == "shop" && a.Name == "till" {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

func TestNodeAsksForCertificatesForItsPods(t *testing.T) {
	of := func(change func(*corev1.Pod)) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.UID, p.Spec.NodeName, p.Spec.ServiceAccountName = "pod-1", "n1", "till"
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/mine"}}}}}}}
			if change != nil {
				change(p)
			}
		})
	}
	node, account := &corev1.Node{ObjectMeta: meta("", "n1")}, &corev1.ServiceAccount{ObjectMeta: meta("shop", "till")}
	node.UID, account.UID = "node-1", "account-1"
	type spec = certificatesv1.PodCertificateRequestSpec
	for name, tc := range map[string]struct {
		pod    *corev1.Pod
		change func(*spec)
		says   string
	}{
		"a volume's":            {of(nil), func(*spec) {}, ""},
		"one that is granted":   {of(nil), func(s *spec) { s.SignerName = "example.com/other" }, ""},
		"one that nobody wants": {of(nil), func(s *spec) { s.SignerName = "example.com/third" }, `pod "shop/p" does not mount a podCertificate projected volume for signer "example.com/third"`},
		"another node's name":   {of(nil), func(s *spec) { s.NodeName = "n2" }, `which is not the requesting node "n1"`},
		"another node":          {of(nil), func(s *spec) { s.NodeUID = "x" }, "names node UID"},
		"another pod":           {of(nil), func(s *spec) { s.PodUID = "x" }, "contains pod UID"},
		"no pod":                {of(nil), func(s *spec) { s.PodName = "x" }, `pods "x" not found`},
		"a pod elsewhere":       {of(func(p *corev1.Pod) { p.Spec.NodeName = "n2" }), func(*spec) {}, "is not running on node"},
		"a mirror pod":          {of(func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }), func(*spec) {}, "is a mirror pod"},
		"another account":       {of(nil), func(s *spec) { s.ServiceAccountName = "boss" }, `contains serviceAccountName ("boss") that differs`},
		"an account of before":  {of(nil), func(s *spec) { s.ServiceAccountUID = "x" }, "names service account UID"},
	} {
		t.Run(name, func(t *testing.T) {
			req := &certificatesv1.PodCertificateRequest{ObjectMeta: meta("shop", "r"), Spec: spec{SignerName: "example.com/mine", PodName: "p", PodUID: "pod-1",
				ServiceAccountName: "till", ServiceAccountUID: "account-1", NodeName: "n1", NodeUID: "node-1"}}
			tc.change(&req.Spec)
			a := create(req)
			a.User = &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
			p := NodeRestriction{Reader: objects{node, account, tc.pod}, Authorizer: anySigner{}}
			wantError(t, run(p, a), tc.says)
			a.Operation, a.Old = admission.Update, req
			wantError(t, run(p, a), "unexpected operation")
		})
	}
}
