package sources

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// tokenKey is what a token is asked for.
type tokenKey struct {
	uid               types.UID
	account, audience string
	seconds           int64
}

// token is one that was given, and when to ask for the next.
type token struct {
	value string
	renew time.Time
}

// Token implements volume.Source: tokens are renewed at 80 % of their life.
func (s *Sources) Token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (string, time.Time, error) {
	seconds := int64(3600)
	if p.ExpirationSeconds != nil {
		seconds = *p.ExpirationSeconds
	}
	k := tokenKey{pod.UID, pod.Spec.ServiceAccountName, p.Audience, seconds}
	now := time.Now()
	s.mu.Lock()
	t, ok := s.tokens[k]
	s.mu.Unlock()
	if ok && now.Before(t.renew) {
		return t.value, t.renew, nil
	}
	if s.Tokens == nil {
		return "", time.Time{}, fmt.Errorf("failed to fetch token: this agent has no way to ask for service-account tokens")
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	out, err := s.Tokens(ctx, pod.Namespace, pod.Spec.ServiceAccountName, req)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	life := out.Status.ExpirationTimestamp.Sub(now)
	t = token{out.Status.Token, now.Add(min(life*8/10, 24*time.Hour))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[k] = t
	return t.value, t.renew, nil
}
