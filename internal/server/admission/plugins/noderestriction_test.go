package plugins

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// granting allows one request for an audience.
type granting struct{ audience, namespace, account string }

func (g granting) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.Verb == verbTokenAudience && a.IsResource && a.Group == "" && a.Resource == g.audience && a.Namespace == g.namespace && a.Name == g.account {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

func TestNodeHasTokensForTheAudiencesOfItsPods(t *testing.T) {
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	p := pod(func(p *corev1.Pod) {
		p.Spec.NodeName, p.UID, p.Spec.ServiceAccountName = "n1", "pod-1", "till"
		p.Spec.Volumes = []corev1.Volume{
			{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{DownwardAPI: &corev1.DownwardAPIProjection{}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault"}},
			}}}},
		}
	})
	apiToken := pod(func(p *corev1.Pod) {
		p.Name, p.UID, p.Spec.NodeName, p.Spec.ServiceAccountName = "api", "pod-2", "n1", "till"
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}}}}
	})
	tests := []struct {
		name      string
		pod       *corev1.Pod
		audiences []string
		says      string
	}{
		{"the audience of a volume", p, []string{"vault"}, ""},
		{"the API server's, which no volume asks for", p, nil, `system:node:n1 is not authorized to request tokens for audience ""`},
		{"the API server's, which a volume asks for", apiToken, nil, ""},
		{"another pod's", apiToken, []string{"vault"}, `not authorized to request tokens for audience "vault"`},
		{"nobody's", p, []string{"bank"}, `not authorized to request tokens for audience "bank"`},
		{"one that RBAC grants", p, []string{"granted"}, ""},
		{"several", p, []string{"vault", "vault"}, "node may only request 0 or 1 audiences"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := NodeRestriction{Reader: objects{p, apiToken}, Authorizer: granting{"granted", p.Namespace, "till"}}
			a := &admission.Attributes{User: node, Operation: admission.Create, Resource: api.ServiceAccounts, Subresource: "token",
				Key: api.Key{Namespace: p.Namespace, Name: "till"}, Object: &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
					Audiences:      tc.audiences,
					BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: tc.pod.Name, UID: tc.pod.UID},
				}}}
			wantError(t, run(r, a), tc.says)
		})
	}
}

func TestNodeWithoutANameWritesNothing(t *testing.T) {
	a := create(&corev1.Node{ObjectMeta: meta("", "n1")})
	a.User = &user.DefaultInfo{Name: "system:node:", Groups: []string{"system:nodes"}}
	wantError(t, run(NodeRestriction{Reader: objects{}}, a), `could not determine node from user "system:node:"`)
}

func TestNodeSaysOfClaimsOnlyWhatResizingIsAbout(t *testing.T) {
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	claim := func(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: meta("shop", "d")}
		change(c)
		return c
	}
	old := claim(func(*corev1.PersistentVolumeClaim) {})
	for _, tc := range []struct {
		name, sub string
		now       *corev1.PersistentVolumeClaim
		says      string
	}{
		{"capacity", "status", claim(func(c *corev1.PersistentVolumeClaim) {
			c.Status.Capacity = corev1.ResourceList{"storage": resource.MustParse("1Gi")}
		}), ""},
		{"conditions", "status", claim(func(c *corev1.PersistentVolumeClaim) {
			c.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: "Resizing"}}
		}), ""},
		{"phase", "status", claim(func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = "Lost" }), "not allowed to update fields other than"},
		{"labels", "status", claim(func(c *corev1.PersistentVolumeClaim) { c.Labels = map[string]string{"a": "b"} }), "not allowed to update fields other than"},
		{"the claim itself", "", claim(func(*corev1.PersistentVolumeClaim) {}), "may only update PVC status"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := create(tc.now)
			a.User, a.Operation, a.Old, a.Subresource = node, admission.Update, old, tc.sub
			wantError(t, run(NodeRestriction{Reader: objects{}}, a), tc.says)
		})
	}
}

func TestNodeTakesOnlyItsFinalizerFromAVolumeThatEnds(t *testing.T) {
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	volume := func(ending bool, finalizers ...string) *corev1.PersistentVolume {
		pv := &corev1.PersistentVolume{ObjectMeta: meta("", "pv")}
		pv.Finalizers = finalizers
		if ending {
			pv.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
		}
		return pv
	}
	const own, others = localvolume.Finalizer, "example.com/keep"
	moved := volume(true, others)
	moved.Spec.StorageClassName = "another"
	made := func(when string, change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
		pv := volume(false, own)
		pv.Annotations = map[string]string{localvolume.MadeAnnotation: when}
		if change != nil {
			change(pv)
		}
		return pv
	}
	for name, tc := range map[string]struct {
		old, now *corev1.PersistentVolume
		says     string
	}{
		"its own":             {volume(true, own, others), volume(true, others), ""},
		"another's":           {volume(true, own, others), volume(true, own), "may only take finalizer"},
		"both":                {volume(true, own, others), volume(true), "may only take finalizer"},
		"of one that stays":   {volume(false, own, others), volume(false, others), "may only take finalizer"},
		"and something else":  {volume(true, own, others), moved, "may only change the finalizers"},
		"that it is made":     {volume(false, own), made("1", nil), ""},
		"that twice":          {made("1", nil), made("2", nil), "may only take finalizer"},
		"that and another":    {volume(false, own), made("1", func(pv *corev1.PersistentVolume) { pv.Spec.StorageClassName = "x" }), "may only change the finalizers"},
		"that with a note":    {volume(false, own), made("1", func(pv *corev1.PersistentVolume) { pv.Annotations["x"] = "y" }), "may only change the finalizers"},
		"with nothing to say": {volume(true, own), volume(true, own), "may only take finalizer"},
	} {
		t.Run(name, func(t *testing.T) {
			a := create(tc.now)
			a.User, a.Operation, a.Old = node, admission.Update, tc.old
			wantError(t, run(NodeRestriction{Reader: objects{}}, a), tc.says)
		})
	}
}

func TestNodeAsksForCertificatesInItsOwnName(t *testing.T) {
	request := func(cn string) []byte {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	for _, tc := range []struct {
		name, signer string
		request      []byte
		says         string
	}{
		{"its own client certificate", certificatesv1.KubeAPIServerClientKubeletSignerName, request("system:node:n1"), ""},
		{"its own serving certificate", certificatesv1.KubeletServingSignerName, request("system:node:n1"), ""},
		{"another's client certificate", certificatesv1.KubeAPIServerClientKubeletSignerName, request("system:node:n2"), "can only create a node CSR with CN=system:node:n1"},
		{"another's serving certificate", certificatesv1.KubeletServingSignerName, request("system:node:n2"), "can only create a node CSR with CN=system:node:n1"},
		{"of a signer that does not sign for nodes", "example.com/any", request("x"), ""},
		{"no request", certificatesv1.KubeletServingSignerName, []byte("x"), "unable to parse csr"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := create(&certificatesv1.CertificateSigningRequest{ObjectMeta: meta("", "c"),
				Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: tc.signer, Request: tc.request}})
			a.User = &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
			wantError(t, run(NodeRestriction{Reader: objects{}}, a), tc.says)
		})
	}
}
