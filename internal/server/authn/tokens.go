package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/lru"
)

// DefaultIssuer is the issuer of service account tokens, and their audience where none is asked for.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

// Tokens issues and verifies service account tokens (JWTs as KEP-1205 describes them).
type Tokens struct {
	cfg    TokensConfig
	signer jose.Signer
	keys   jose.JSONWebKeySet
	algs   []jose.SignatureAlgorithm
	// verified holds the claims of tokens whose signature was right, by the token's SHA-256. What the claims are worth
	// today is looked up again each time.
	verified *lru.Cache
}

// TokensConfig configures Tokens.
type TokensConfig struct {
	// Key signs tokens: ECDSA P-256 or RSA.
	Key crypto.Signer
	// OtherKeys are public keys whose tokens are believed as well, while keys are exchanged.
	OtherKeys []crypto.PublicKey
	// Issuer and Audiences of this API server; DefaultIssuer, and the issuer, if empty.
	Issuer    string
	Audiences []string
	// Reader is the shared copy.
	Reader Reader
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// NewTokens returns Tokens that sign with cfg.Key.
func NewTokens(cfg TokensConfig) (*Tokens, error) {
	if cfg.Issuer == "" {
		cfg.Issuer = DefaultIssuer
	}
	if len(cfg.Audiences) == 0 {
		cfg.Audiences = []string{cfg.Issuer}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t := &Tokens{cfg: cfg, verified: lru.New(4096)}
	for _, pub := range append([]crypto.PublicKey{cfg.Key.Public()}, cfg.OtherKeys...) {
		jwk, err := publicJWK(pub)
		if err != nil {
			return nil, fmt.Errorf("service account token key: %w", err)
		}
		t.keys.Keys = append(t.keys.Keys, jwk)
		if alg := jose.SignatureAlgorithm(jwk.Algorithm); !slices.Contains(t.algs, alg) {
			t.algs = append(t.algs, alg)
		}
	}
	private := jose.JSONWebKey{Key: cfg.Key, KeyID: t.keys.Keys[0].KeyID, Algorithm: t.keys.Keys[0].Algorithm}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(private.Algorithm), Key: private}, nil)
	if err != nil {
		return nil, fmt.Errorf("service account token key: %w", err)
	}
	t.signer = signer
	return t, nil
}

// publicJWK describes a public key as RFC 7517 has it. The key ID is a hash of the key, so that it is the same everywhere.
func publicJWK(pub crypto.PublicKey) (jose.JSONWebKey, error) {
	var alg jose.SignatureAlgorithm
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			alg = jose.ES256
		case 384:
			alg = jose.ES384
		default:
			return jose.JSONWebKey{}, fmt.Errorf("curve %s is not supported, use P-256", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		alg = jose.RS256
	default:
		return jose.JSONWebKey{}, fmt.Errorf("a key of type %T is not supported, use ECDSA or RSA", pub)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	sum := sha256.Sum256(der)
	return jose.JSONWebKey{Key: pub, KeyID: base64.RawURLEncoding.EncodeToString(sum[:]), Algorithm: string(alg), Use: "sig"}, nil
}

// Audiences returns the audiences that this API server answers to.
func (t *Tokens) Audiences() []string { return slices.Clone(t.cfg.Audiences) }

// Authenticate implements Authenticator for the bearer token of the Authorization header.
func (t *Tokens) Authenticate(r *http.Request) (user.Info, bool, error) {
	token, ok := BearerToken(r)
	if !ok {
		return nil, false, nil
	}
	who, _, ok, err := t.AuthenticateToken(r.Context(), token, nil)
	if !ok && err == nil {
		err = errors.New("unknown bearer token")
	}
	return who, ok, err
}

// BearerToken returns the token in the Authorization header, if there is one (RFC 6750 2.1).
func BearerToken(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	token = strings.TrimSpace(token)
	if !ok || token == "" || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return token, true
}

// AuthenticateToken implements TokenAuthenticator. ok is false without an error for what is not a token of this issuer.
func (t *Tokens) AuthenticateToken(_ context.Context, token string, audiences []string) (user.Info, []string, bool, error) {
	c, err := t.verify(token)
	if c == nil {
		return nil, nil, false, err
	}
	if len(audiences) == 0 {
		audiences = t.cfg.Audiences
	}
	var valid []string
	for _, a := range audiences {
		if slices.Contains(c.Audience, a) {
			valid = append(valid, a)
		}
	}
	if len(valid) == 0 {
		return nil, nil, false, fmt.Errorf("the token is for audiences %q, not for %q", c.Audience, audiences)
	}
	if err := t.check(c); err != nil {
		return nil, nil, false, err
	}
	return c.who, valid, true, nil
}

// verify returns the claims of a token that one of our keys has signed; nil without an error for what is not ours.
func (t *Tokens) verify(token string) (*claims, error) {
	sum := sha256.Sum256([]byte(token))
	if c, ok := t.verified.Get(sum); ok {
		return c.(*claims), nil
	}
	if strings.Count(token, ".") != 2 {
		return nil, nil
	}
	parsed, err := jwt.ParseSigned(token, t.algs)
	if err != nil {
		return nil, fmt.Errorf("the bearer token is malformed or signed in a way that is not accepted: %w", err)
	}
	var unverified jwt.Claims
	if err := parsed.UnsafeClaimsWithoutVerification(&unverified); err != nil {
		return nil, fmt.Errorf("reading the bearer token's claims: %w", err)
	}
	if unverified.Issuer != t.cfg.Issuer {
		return nil, nil
	}
	c := &claims{}
	if err := t.verifySignature(parsed, c); err != nil {
		return nil, err
	}
	c.who = c.user()
	t.verified.Add(sum, c)
	return c, nil
}

// verifySignature tries the key that the token names, or all of them if it names none.
func (t *Tokens) verifySignature(parsed *jwt.JSONWebToken, into *claims) error {
	keys := t.keys.Keys
	if id := parsed.Headers[0].KeyID; id != "" {
		keys = t.keys.Key(id)
	}
	for _, k := range keys {
		if parsed.Claims(k.Key, into) == nil {
			return nil
		}
	}
	return errors.New("the service account token is not signed by a key of this cluster")
}

var _ interface {
	Authenticator
	TokenAuthenticator
} = (*Tokens)(nil)

// userOfAccount is the user that a service account is: KEP-1205, and the groups that RBAC bindings name.
func userOfAccount(namespace, name, uid string) *user.DefaultInfo {
	return authenticated(&user.DefaultInfo{
		Name:   serviceaccount.MakeUsername(namespace, name),
		UID:    uid,
		Groups: serviceaccount.MakeGroupNames(namespace),
	})
}
