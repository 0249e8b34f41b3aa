package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/lru"
)

// Reviewer is the API server, which knows whose a token is and who may do what. Both return the review with its status.
type Reviewer interface {
	ReviewToken(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error)
	ReviewAccess(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error)
}

// How long answers of the API server hold, as a kubelet's defaults have it (authentication.webhook.cacheTTL,
// authorization.webhook.cacheAuthorizedTTL and cacheUnauthorizedTTL), but for rights: those that are taken away end sooner here.
const (
	tokenTime   = 2 * time.Minute
	allowedTime = time.Minute
	refusedTime = 30 * time.Second
)

// reviewsKept is how many answers are remembered.
const reviewsKept = 1024

// reviews asks the API server and remembers its answers for a while. Tokens are kept as sums.
type reviews struct {
	server Reviewer
	now    func() time.Time

	known *lru.Cache // [sha256.Size]byte -> remembered
}

// remembered is an answer: whose a token is (nil: nobody's), or whether something is allowed.
type remembered struct {
	until   time.Time
	who     user.Info
	allowed bool
}

func newReviews(server Reviewer, now func() time.Time) *reviews {
	return &reviews{server: server, now: now, known: lru.New(reviewsKept)}
}

func (s *reviews) recall(key [sha256.Size]byte) (remembered, bool) {
	v, ok := s.known.Get(key)
	if !ok {
		return remembered{}, false
	}
	a := v.(remembered)
	return a, s.now().Before(a.until)
}

// Authenticate implements authn.Authenticator by the bearer token of a request.
func (s *reviews) Authenticate(r *http.Request) (user.Info, bool, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, false, nil
	}
	key := sha256.Sum256([]byte("token\x00" + token))
	a, ok := s.recall(key)
	if !ok {
		review, err := s.server.ReviewToken(r.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
		if err != nil {
			return nil, false, err
		}
		a = remembered{until: s.now().Add(tokenTime)}
		if st := review.Status; st.Authenticated {
			extra := make(map[string][]string, len(st.User.Extra))
			for k, v := range st.User.Extra {
				extra[k] = v
			}
			a.who = &user.DefaultInfo{Name: st.User.Username, UID: st.User.UID, Groups: st.User.Groups, Extra: extra}
		}
		s.known.Add(key, a)
	}
	if a.who == nil {
		return nil, false, errors.New("the API server does not accept the token")
	}
	return a.who, true, nil
}

// allowed reports whether what q asks for is allowed.
func (s *reviews) allowed(ctx context.Context, q *authorizationv1.SubjectAccessReview) (bool, error) {
	spec, err := json.Marshal(q.Spec)
	if err != nil {
		return false, err
	}
	key := sha256.Sum256(append([]byte("access\x00"), spec...))
	if a, ok := s.recall(key); ok {
		return a.allowed, nil
	}
	review, err := s.server.ReviewAccess(ctx, q)
	if err != nil {
		return false, err
	}
	a := remembered{allowed: review.Status.Allowed && !review.Status.Denied}
	if a.until = s.now().Add(refusedTime); a.allowed {
		a.until = s.now().Add(allowedTime)
	}
	s.known.Add(key, a)
	return a.allowed, nil
}
