package authn

import (
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

type oneSecret struct{ s *corev1.Secret }

func (o oneSecret) Get(res *api.Resource, key api.Key) (api.Object, bool) {
	if res != api.Secrets || key != api.KeyOf(o.s) {
		return nil, false
	}
	return o.s, true
}

func TestBootstrapTokens(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		header string
		change func(s *corev1.Secret)
		ok     bool
		errs   bool
	}{
		{name: "good", header: "Bearer abcdef.0123456789abcdef", ok: true},
		{name: "not one of these tokens", header: "Bearer eyJhbGciOi.x.y"},
		{name: "no token", header: ""},
		{name: "another scheme", header: "Basic abcdef.0123456789abcdef"},
		{name: "wrong secret", header: "Bearer abcdef.0123456789abcdee", errs: true},
		{name: "unknown id", header: "Bearer abcdeg.0123456789abcdef", errs: true},
		{name: "expired", header: "Bearer abcdef.0123456789abcdef", errs: true, change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("2030-01-01T12:00:00Z") }},
		{name: "unreadable expiration", header: "Bearer abcdef.0123456789abcdef", errs: true, change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("tomorrow") }},
		{name: "not for authentication", header: "Bearer abcdef.0123456789abcdef", errs: true, change: func(s *corev1.Secret) { delete(s.Data, "usage-bootstrap-authentication") }},
		{name: "another type of secret", header: "Bearer abcdef.0123456789abcdef", errs: true, change: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }},
		{name: "being deleted", header: "Bearer abcdef.0123456789abcdef", errs: true, change: func(s *corev1.Secret) { n := metav1.Now(); s.DeletionTimestamp = &n }},
		{name: "a group that is not for bootstrapping", header: "Bearer abcdef.0123456789abcdef", errs: true, change: func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:masters") }},
	} {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: BootstrapTokenType,
			Data: map[string][]byte{"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
				"expiration": []byte("2030-01-01T12:00:01Z"), "auth-extra-groups": []byte("system:bootstrappers:workers")},
		}
		if tc.change != nil {
			tc.change(s)
		}
		r := &http.Request{Header: http.Header{"Authorization": {tc.header}}}
		who, ok, err := NewBootstrapTokens(oneSecret{s}, func() time.Time { return now }).Authenticate(r)
		if ok != tc.ok || (err != nil) != tc.errs {
			t.Errorf("%s: %v %v", tc.name, ok, err)
		}
		if ok && (who.GetName() != "system:bootstrap:abcdef" || !slices.Equal(who.GetGroups(), []string{"system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"})) {
			t.Errorf("%s: %v %v", tc.name, who.GetName(), who.GetGroups())
		}
	}
}
