package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
)

// Bootstrap tokens are Secrets bootstrap-token-ID of this type in kube-system, and are worth what system:bootstrappers may do
// (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
const (
	BootstrapTokenType corev1.SecretType = "bootstrap.kubernetes.io/token"

	BootstrapTokenPrefix = "bootstrap-token-"
	BootstrapGroup       = "system:bootstrappers"
	bootstrapUserPrefix  = "system:bootstrap:"
)

var (
	bootstrapToken = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroup = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// BootstrapTokens authenticates machines that want to join: bearer tokens ID.SECRET.
type BootstrapTokens struct {
	reader Reader
	now    func() time.Time
}

// NewBootstrapTokens returns a BootstrapTokens over the shared copy. now is the clock, time.Now if nil.
func NewBootstrapTokens(r Reader, now func() time.Time) *BootstrapTokens {
	if now == nil {
		now = time.Now
	}
	return &BootstrapTokens{reader: r, now: now}
}

var errBootstrap = errors.New("the bootstrap token is not known, has expired, or is not for authentication")

// Authenticate implements Authenticator.
func (b *BootstrapTokens) Authenticate(r *http.Request) (user.Info, bool, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return nil, false, nil
	}
	who, _, ok, err := b.AuthenticateToken(r.Context(), strings.TrimSpace(token), nil)
	return who, ok, err
}

// AuthenticateToken implements TokenAuthenticator. Bootstrap tokens are for the API server only.
func (b *BootstrapTokens) AuthenticateToken(_ context.Context, token string, audiences []string) (user.Info, []string, bool, error) {
	m := bootstrapToken.FindStringSubmatch(token)
	if m == nil || audiences != nil {
		return nil, nil, false, nil
	}
	id, secret := m[1], m[2]
	obj, ok := b.reader.Get(api.Secrets, api.Key{Namespace: metav1.NamespaceSystem, Name: BootstrapTokenPrefix + id})
	if !ok {
		return nil, nil, false, errBootstrap
	}
	s := obj.(*corev1.Secret)
	if s.Type != BootstrapTokenType || s.DeletionTimestamp != nil || string(s.Data["token-id"]) != id ||
		subtle.ConstantTimeCompare(s.Data["token-secret"], []byte(secret)) != 1 ||
		string(s.Data["usage-bootstrap-authentication"]) != "true" || BootstrapTokenExpired(s, b.now()) {
		return nil, nil, false, errBootstrap
	}
	groups := []string{BootstrapGroup}
	for g := range strings.SplitSeq(string(s.Data["auth-extra-groups"]), ",") {
		if g == "" {
			continue
		}
		if !bootstrapGroup.MatchString(g) {
			return nil, nil, false, errBootstrap
		}
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return authenticated(&user.DefaultInfo{Name: bootstrapUserPrefix + id, Groups: groups}), nil, true, nil
}

// BootstrapTokenExpired tells whether a bootstrap token's time is over. One whose expiration cannot be read has expired.
func BootstrapTokenExpired(s *corev1.Secret, now time.Time) bool {
	text := string(s.Data["expiration"])
	if text == "" {
		return false
	}
	t, err := time.Parse(time.RFC3339, text)
	return err != nil || !now.Before(t)
}
