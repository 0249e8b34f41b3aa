package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
)

// objects is a shared copy for tests.
type objects map[*api.Resource]map[api.Key]api.Object

func (o objects) Get(res *api.Resource, key api.Key) (api.Object, bool) {
	obj, ok := o[res][key]
	return obj, ok
}

func (o objects) put(res *api.Resource, obj api.Object) {
	if o[res] == nil {
		o[res] = map[api.Key]api.Object{}
	}
	o[res][api.KeyOf(obj)] = obj
}

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func meta(namespace, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid)}
}

// world is a cluster with account shop/till, its pod till-1 on node n1, and secret s.
func world(t testing.TB) (*Tokens, objects, *clock) {
	t.Helper()
	o := objects{}
	o.put(api.ServiceAccounts, &corev1.ServiceAccount{ObjectMeta: meta("shop", "till", "sa-1")})
	o.put(api.ServiceAccounts, &corev1.ServiceAccount{ObjectMeta: meta("shop", "other", "sa-2")})
	o.put(api.Pods, &corev1.Pod{ObjectMeta: meta("shop", "till-1", "pod-1"), Spec: corev1.PodSpec{ServiceAccountName: "till", NodeName: "n1"}})
	o.put(api.Secrets, &corev1.Secret{ObjectMeta: meta("shop", "s", "secret-1")})
	o.put(api.Nodes, &corev1.Node{ObjectMeta: meta("", "n1", "node-1")})
	c := &clock{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	tokens, err := NewTokens(TokensConfig{Key: newKey(t), Reader: o, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return tokens, o, c
}

func request(kind, name string, seconds int64) *authenticationv1.TokenRequest {
	r := &authenticationv1.TokenRequest{}
	if kind != "" {
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: kind, APIVersion: "v1", Name: name}
	}
	if seconds != 0 {
		r.Spec.ExpirationSeconds = &seconds
	}
	return r
}

func issue(t testing.TB, tokens *Tokens, r *authenticationv1.TokenRequest) string {
	t.Helper()
	out, err := tokens.TokenRequest(api.Key{Namespace: "shop", Name: "till"}, r)
	if err != nil {
		t.Fatal(err)
	}
	return out.Status.Token
}

func bearer(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestPodTokenMakesTheUser(t *testing.T) {
	tokens, _, _ := world(t)
	who, ok, err := tokens.Authenticate(bearer(issue(t, tokens, request("Pod", "till-1", 0))))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if who.GetName() != "system:serviceaccount:shop:till" || who.GetUID() != "sa-1" {
		t.Errorf("user %s, UID %s", who.GetName(), who.GetUID())
	}
	if want := []string{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}; !slices.Equal(who.GetGroups(), want) {
		t.Errorf("groups %q, want %q", who.GetGroups(), want)
	}
	extra := who.GetExtra()
	if !strings.HasPrefix(extra["authentication.kubernetes.io/credential-id"][0], "JTI=") {
		t.Errorf("credential %q", extra["authentication.kubernetes.io/credential-id"])
	}
	delete(extra, "authentication.kubernetes.io/credential-id")
	want := map[string][]string{
		"authentication.kubernetes.io/pod-name": {"till-1"}, "authentication.kubernetes.io/pod-uid": {"pod-1"},
		"authentication.kubernetes.io/node-name": {"n1"}, "authentication.kubernetes.io/node-uid": {"node-1"},
	}
	if diff := cmp.Diff(want, extra); diff != "" {
		t.Error(diff)
	}
}

// The names inside the token are read by other programs (Vault, cloud providers, SPIFFE federations).
func TestClaimsOnTheWire(t *testing.T) {
	tokens, _, c := world(t)
	token := issue(t, tokens, request("Pod", "till-1", projectedSeconds))
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	if id, _ := got["jti"].(string); len(id) != 36 {
		t.Errorf("jti %v", got["jti"])
	}
	delete(got, "jti")
	now := float64(c.now.Unix())
	want := map[string]any{
		"aud": []any{DefaultIssuer}, "iss": DefaultIssuer, "sub": "system:serviceaccount:shop:till",
		"exp": now + extendedSeconds, "iat": now, "nbf": now,
		"kubernetes.io": map[string]any{
			"namespace":      "shop",
			"serviceaccount": map[string]any{"name": "till", "uid": "sa-1"},
			"pod":            map[string]any{"name": "till-1", "uid": "pod-1"},
			"node":           map[string]any{"name": "n1", "uid": "node-1"},
			"warnafter":      now + projectedSeconds,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTokenIsWorthNothingWhen(t *testing.T) {
	deleted := func(d time.Duration) func(objects, *clock) {
		return func(o objects, c *clock) {
			at := metav1.NewTime(c.now.Add(-d))
			m := meta("shop", "till-1", "pod-1")
			m.DeletionTimestamp = &at
			o.put(api.Pods, &corev1.Pod{ObjectMeta: m})
		}
	}
	tests := []struct {
		name   string
		kind   string
		object string
		change func(o objects, c *clock)
		err    string // "" if it stays good
	}{
		{"nothing changed", "Pod", "till-1", func(objects, *clock) {}, ""},
		{"it has expired", "", "", func(_ objects, c *clock) { c.now = c.now.Add(62 * time.Minute) }, "expired"},
		{"it is about to expire", "", "", func(_ objects, c *clock) { c.now = c.now.Add(59 * time.Minute) }, ""},
		{"it is from the future", "", "", func(_ objects, c *clock) { c.now = c.now.Add(-2 * time.Minute) }, "not valid yet"},
		{"the account is gone", "", "", func(o objects, _ *clock) { clear(o[api.ServiceAccounts]) }, `serviceaccount "till" is gone`},
		{"the account was made again", "", "", func(o objects, _ *clock) {
			o.put(api.ServiceAccounts, &corev1.ServiceAccount{ObjectMeta: meta("shop", "till", "sa-9")})
		}, "has UID sa-9"},
		{"the pod is gone", "Pod", "till-1", func(o objects, _ *clock) { clear(o[api.Pods]) }, `pod "till-1" is gone`},
		{"the pod was made again", "Pod", "till-1", func(o objects, _ *clock) {
			o.put(api.Pods, &corev1.Pod{ObjectMeta: meta("shop", "till-1", "pod-9")})
		}, "has UID pod-9"},
		{"the pod terminates", "Pod", "till-1", deleted(30 * time.Second), ""},
		{"the pod should have terminated", "Pod", "till-1", deleted(2 * time.Minute), "was deleted"},
		{"the pod's node is gone", "Pod", "till-1", func(o objects, _ *clock) { clear(o[api.Nodes]) }, ""},
		{"the secret is gone", "Secret", "s", func(o objects, _ *clock) { clear(o[api.Secrets]) }, `secret "s" is gone`},
		{"the node is gone", "Node", "n1", func(o objects, _ *clock) { clear(o[api.Nodes]) }, `node "n1" is gone`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tokens, o, c := world(t)
			token := issue(t, tokens, request(tc.kind, tc.object, 0))
			// Once before, so that the signature is remembered: that must not outlive the object.
			if _, ok, err := tokens.Authenticate(bearer(token)); !ok {
				t.Fatal(err)
			}
			tc.change(o, c)
			_, ok, err := tokens.Authenticate(bearer(token))
			switch {
			case tc.err == "" && !ok:
				t.Error(err)
			case tc.err != "" && (ok || err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("ok %v, error %v, want %q", ok, err, tc.err)
			}
		})
	}
}

func TestForgedTokens(t *testing.T) {
	tokens, o, c := world(t)
	good := issue(t, tokens, request("", "", 0))
	other, err := NewTokens(TokensConfig{Key: newKey(t), Reader: o, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	changed := strings.Replace(string(payload), "till", "root", -1)
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	// The classic: the public key taken as a secret of HMAC.
	hmac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte("0123456789abcdef0123456789abcdef")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var same map[string]any
	if err := json.Unmarshal(payload, &same); err != nil {
		t.Fatal(err)
	}
	symmetric, err := jwt.Signed(hmac).Claims(same).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := NewTokens(TokensConfig{Key: tokens.cfg.Key, Issuer: "https://elsewhere.example", Reader: o, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	forever, err := jwt.Signed(tokens.signer).Claims(map[string]any{"iss": DefaultIssuer, "aud": DefaultIssuer, "sub": "system:serviceaccount:shop:till",
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]string{"name": "till", "uid": "sa-1"}}}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"another key":             issue(t, other, request("", "", 0)),
		"changed claims":          parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(changed)) + "." + parts[2],
		"no signature":            none + "." + parts[1] + ".",
		"symmetric signature":     symmetric,
		"another issuer":          issue(t, foreign, request("", "", 0)),
		"another audience":        issue(t, tokens, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}}),
		"no end":                  forever,
		"no token at all":         "hello",
		"two dots":                "a.b.c",
		"an empty, dotted string": "..",
	} {
		if who, ok, err := tokens.Authenticate(bearer(token)); ok || err == nil {
			t.Errorf("%s: user %v, error %v", name, who, err)
		}
	}
	if _, ok, err := tokens.Authenticate(bearer(good)); !ok {
		t.Error(err)
	}
}

func TestAudiences(t *testing.T) {
	tokens, _, _ := world(t)
	token := issue(t, tokens, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"vault", "bank"}}})
	_, valid, ok, err := tokens.AuthenticateToken(t.Context(), token, []string{"bank", "other"})
	if !ok || !slices.Equal(valid, []string{"bank"}) {
		t.Errorf("valid %q, ok %v, error %v", valid, ok, err)
	}
}

func TestTokenRequestRules(t *testing.T) {
	wrongUID := request("Pod", "till-1", 0)
	wrongUID.Spec.BoundObjectRef.UID = "pod-0"
	otherName := request("", "", 0)
	otherName.Name = "root"
	otherAccount := request("", "", 0)
	otherAccount.UID = "sa-0"
	tests := []struct {
		name    string
		account string
		req     *authenticationv1.TokenRequest
		is      func(error) bool
		says    string
	}{
		{"too short", "till", request("", "", 599), apierrors.IsInvalid, "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"},
		{"too long", "till", request("", "", 1<<33), apierrors.IsInvalid, "larger than 2^32 seconds"},
		{"no such account", "nobody", request("", "", 0), apierrors.IsNotFound, `serviceaccounts "nobody" not found`},
		{"no such pod", "till", request("Pod", "x", 0), apierrors.IsNotFound, `pods "x" not found`},
		{"another account's pod", "other", request("Pod", "till-1", 0), apierrors.IsBadRequest, "different serviceaccount name"},
		{"the pod of that name before", "till", wrongUID, apierrors.IsConflict, "(pod-0) does not match the UID in record"},
		{"the account of that name before", "till", otherAccount, apierrors.IsConflict, "the UID in the token request (sa-0)"},
		{"an odd kind", "till", request("Service", "x", 0), apierrors.IsBadRequest, "cannot bind token to object of type /v1, Kind=Service"},
		{"another name inside", "till", otherName, apierrors.IsInvalid, "must match the service account name if specified"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tokens, _, _ := world(t)
			_, err := tokens.TokenRequest(api.Key{Namespace: "shop", Name: tc.account}, tc.req)
			if err == nil || !tc.is(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want %q", err, tc.says)
			}
		})
	}
}

func TestTokenRequestAnswer(t *testing.T) {
	tokens, _, c := world(t)
	for _, seconds := range []int64{0, 600, projectedSeconds} {
		out, err := tokens.TokenRequest(api.Key{Namespace: "shop", Name: "till"}, request("Pod", "till-1", seconds))
		if err != nil {
			t.Fatal(err)
		}
		want := max(seconds, 600)
		if seconds == 0 {
			want = 3600
		}
		// A token whose life was prolonged still says when it was asked to end, so that clients fetch a new one.
		if got := out.Status.ExpirationTimestamp.Sub(c.now); got != time.Duration(want)*time.Second || *out.Spec.ExpirationSeconds != want {
			t.Errorf("%d s: expires after %v, spec says %d", seconds, got, *out.Spec.ExpirationSeconds)
		}
		if out.Name != "till" || out.Namespace != "shop" || !slices.Equal(out.Spec.Audiences, []string{DefaultIssuer}) {
			t.Errorf("answer %+v", out)
		}
	}
}

// A relying party knows the two documents and a JOSE library, nothing else.
func TestDiscoveryDocumentsVerifyTokens(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newKey(t), rsaKey} {
		_, o, c := world(t)
		tokens, err := NewTokens(TokensConfig{Key: key, OtherKeys: []crypto.PublicKey{newKey(t).Public()}, Reader: o, Now: c.Now})
		if err != nil {
			t.Fatal(err)
		}
		data, err := tokens.OpenIDConfiguration("https://192.0.2.1:6443")
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Issuer, JWKSURI string
			Algs            []jose.SignatureAlgorithm `json:"id_token_signing_alg_values_supported"`
			URI             string                    `json:"jwks_uri"`
		}
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Issuer != DefaultIssuer || doc.URI != "https://192.0.2.1:6443/openid/v1/jwks" {
			t.Errorf("document %s", data)
		}
		data, err = tokens.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(data, &set); err != nil {
			t.Fatal(err)
		}
		for _, k := range set.Keys {
			if !k.IsPublic() {
				t.Fatal("a private key was published")
			}
		}
		parsed, err := jwt.ParseSigned(issue(t, tokens, request("", "", 0)), doc.Algs)
		if err != nil {
			t.Fatal(err)
		}
		var got jwt.Claims
		if err := parsed.Claims(set, &got); err != nil || got.Subject != "system:serviceaccount:shop:till" {
			t.Errorf("claims %+v, error %v", got, err)
		}
	}
}

func TestOldKeysAreBelievedWhileExchanged(t *testing.T) {
	old, o, c := world(t)
	token := issue(t, old, request("", "", 0))
	tokens, err := NewTokens(TokensConfig{Key: newKey(t), OtherKeys: []crypto.PublicKey{old.cfg.Key.Public()}, Reader: o, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := tokens.Authenticate(bearer(token)); !ok {
		t.Error(err)
	}
}

func BenchmarkAuthenticateToken(b *testing.B) {
	tokens, _, _ := world(b)
	token := issue(b, tokens, request("Pod", "till-1", 0))
	for b.Loop() {
		if _, _, ok, err := tokens.AuthenticateToken(b.Context(), token, nil); !ok {
			b.Fatal(err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	tokens, _, _ := world(f)
	good := issue(f, tokens, request("Pod", "till-1", 0))
	f.Add(good)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if _, _, ok, _ := tokens.AuthenticateToken(t.Context(), token, nil); ok && token != good {
			t.Errorf("accepted %q", token)
		}
	})
}
