// Package authn finds out who sends a request: from the client certificate of its TLS connection, or from the bootstrap or service
// account token in its Authorization header. It also issues those tokens and publishes the keys with which others verify
// them (OpenID Connect discovery).
//
// What flows through it: one *http.Request goes in, a user.Info comes out, or nothing (no credentials that this
// authenticator knows), or an error (credentials that are wrong, expired, or bound to an object that is gone; the answer
// is 401 either way). What must stay true: a token is believed only while the service account, and the pod, secret or
// node that it is bound to, exist in the shared copy with the same UID - the cache remembers signatures, never that
// decision; authenticated users are members of system:authenticated and nobody else is. Tests:
// TestTokenIsWorthNothingWhen, TestPodTokenMakesTheUser.
//
// Left out so far: OIDC of outside issuers, legacy tokens kept in Secrets, anonymous users.
package authn

import (
	"context"
	"net/http"
	"slices"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
)

// Authenticator tells who sent a request. ok is false where the request bears no credentials of its kind; err says
// why credentials were not accepted.
type Authenticator interface {
	Authenticate(r *http.Request) (who user.Info, ok bool, err error)
}

// TokenAuthenticator tells whose a bearer token is. audiences are those that the caller answers to (nil means the API
// server's own); valid are the ones among them for which the token was issued. TokenReview asks it directly.
type TokenAuthenticator interface {
	AuthenticateToken(ctx context.Context, token string, audiences []string) (who user.Info, valid []string, ok bool, err error)
}

// Reader is the part of the shared copy that token checks need; admission.Reader satisfies it.
type Reader interface {
	Get(res *api.Resource, key api.Key) (api.Object, bool)
}

// Union asks each authenticator in turn and takes the first answer. Errors count only when nobody knows the user, so that
// a bad token beside a good certificate does not lock anyone out.
type Union []Authenticator

// Authenticate implements Authenticator.
func (u Union) Authenticate(r *http.Request) (user.Info, bool, error) {
	var first error
	for _, a := range u {
		who, ok, err := a.Authenticate(r)
		if ok {
			return who, true, nil
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return nil, false, first
}

// authenticated returns who as a member of system:authenticated, which every user found here is.
func authenticated(who *user.DefaultInfo) *user.DefaultInfo {
	if !slices.Contains(who.Groups, user.AllAuthenticated) {
		who.Groups = append(slices.Clip(who.Groups), user.AllAuthenticated)
	}
	return who
}
