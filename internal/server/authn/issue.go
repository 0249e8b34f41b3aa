package authn

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/exchanged"
)

const (
	defaultTokenSeconds = 60 * 60
	minTokenSeconds     = 10 * 60
	maxTokenSeconds     = 1 << 32
	// projectedSeconds is the odd lifetime that the ServiceAccount admission plugin asks for. Tokens of exactly that life
	// are valid for a year, so that programs that read their token once keep working (KEP-1205); the year ends early with
	// the pod.
	projectedSeconds = 3607
	extendedSeconds  = 365 * 24 * 60 * 60
)

// Bound is what a token is bound to, besides its account: it dies with it. At most one of Pod, Secret and Node may be set,
// except that Node beside a Pod is information only.
type Bound struct {
	Pod    *corev1.Pod
	Secret *corev1.Secret
	Node   *corev1.Node
}

// Token issues a token for sa. audiences nil means the API server itself. It asks nobody: see TokenRequest for the API's rules.
func (t *Tokens) Token(sa *corev1.ServiceAccount, b Bound, audiences []string, ttl time.Duration) (token string, expires time.Time, err error) {
	return t.token(sa, b, audiences, ttl, 0)
}

func (t *Tokens) token(sa *corev1.ServiceAccount, b Bound, audiences []string, ttl, warnAfter time.Duration) (string, time.Time, error) {
	now := t.cfg.Now()
	expires := now.Add(ttl)
	if len(audiences) == 0 {
		audiences = t.cfg.Audiences
	}
	c := claims{
		Claims: jwt.Claims{
			Issuer:    t.cfg.Issuer,
			Subject:   serviceaccount.MakeUsername(sa.Namespace, sa.Name),
			IssuedAt:  jwt.NewNumericDate(now),
			NotBefore: jwt.NewNumericDate(now),
			Expiry:    jwt.NewNumericDate(expires),
			ID:        string(uuid.NewUUID()),
		},
		Audience:   audiences,
		Kubernetes: private{Namespace: sa.Namespace, Account: refTo(sa)},
	}
	bind := func(obj metav1.Object) *ref { r := refTo(obj); return &r }
	if b.Pod != nil {
		c.Kubernetes.Pod = bind(b.Pod)
	}
	if b.Secret != nil {
		c.Kubernetes.Secret = bind(b.Secret)
	}
	if b.Node != nil {
		c.Kubernetes.Node = bind(b.Node)
	}
	if warnAfter > 0 {
		c.Kubernetes.WarnAfter = jwt.NewNumericDate(now.Add(warnAfter))
	}
	token, err := jwt.Signed(t.signer).Claims(c).Serialize()
	return token, expires, err
}

func refTo(obj metav1.Object) ref { return ref{Name: obj.GetName(), UID: string(obj.GetUID())} }

// TokenRequest answers POST .../serviceaccounts/NAME/token: it checks and completes req, which it keeps, and fills its
// status. Authorization and admission come before.
func (t *Tokens) TokenRequest(account api.Key, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	kind := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind()
	meta := field.NewPath("metadata")
	if req.Name != "" && req.Name != account.Name {
		return nil, apierrors.NewInvalid(kind, account.Name, field.ErrorList{field.Invalid(meta.Child("name"), req.Name, "must match the service account name if specified")})
	}
	if req.Namespace != "" && req.Namespace != account.Namespace {
		return nil, apierrors.NewInvalid(kind, account.Name, field.ErrorList{field.Invalid(meta.Child("namespace"), req.Namespace, "must match the service account namespace if specified")})
	}
	obj, ok := t.cfg.Reader.Get(api.ServiceAccounts, account)
	if !ok {
		return nil, apierrors.NewNotFound(api.ServiceAccounts.GroupResource(), account.Name)
	}
	sa := obj.(*corev1.ServiceAccount)
	if req.UID != "" && req.UID != sa.UID {
		return nil, apierrors.NewConflict(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, account.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", req.UID, sa.UID))
	}
	t.complete(req, sa)
	if errs := exchanged.Validate(req); len(errs) > 0 {
		return nil, apierrors.NewInvalid(kind, "", errs)
	}
	bound, err := t.bound(sa, req.Spec.BoundObjectRef)
	if err != nil {
		return nil, err
	}

	asked := time.Duration(*req.Spec.ExpirationSeconds) * time.Second
	ttl, warnAfter := asked, time.Duration(0)
	if bound.Pod != nil && *req.Spec.ExpirationSeconds == projectedSeconds && t.onlyOurs(req.Spec.Audiences) {
		ttl, warnAfter = extendedSeconds*time.Second, asked
	}
	token, _, err := t.token(sa, bound, req.Spec.Audiences, ttl, warnAfter)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	req.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(req.CreationTimestamp.Add(asked))}
	return req, nil
}

// complete fills what the client left out.
func (t *Tokens) complete(req *authenticationv1.TokenRequest, sa *corev1.ServiceAccount) {
	req.Name, req.Namespace, req.UID = sa.Name, sa.Namespace, sa.UID
	req.CreationTimestamp = metav1.NewTime(t.cfg.Now())
	req.Status = authenticationv1.TokenRequestStatus{}
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = t.Audiences()
	}
	if req.Spec.ExpirationSeconds == nil {
		seconds := int64(defaultTokenSeconds)
		req.Spec.ExpirationSeconds = &seconds
	}
}

// bound looks up what a token request asks its token to be bound to.
func (t *Tokens) bound(sa *corev1.ServiceAccount, r *authenticationv1.BoundObjectReference) (b Bound, err error) {
	if r == nil {
		return b, nil
	}
	kind := schema.FromAPIVersionAndKind(r.APIVersion, r.Kind)
	var res *api.Resource
	namespace := sa.Namespace
	switch kind.GroupKind() {
	case schema.GroupKind{Kind: "Pod"}:
		res = api.Pods
	case schema.GroupKind{Kind: "Secret"}:
		res = api.Secrets
	case schema.GroupKind{Kind: "Node"}:
		res, namespace = api.Nodes, ""
	default:
		return b, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", kind))
	}
	obj, ok := t.cfg.Reader.Get(res, api.Key{Namespace: namespace, Name: r.Name})
	if !ok {
		return b, apierrors.NewNotFound(res.GroupResource(), r.Name)
	}
	if r.UID != "" && r.UID != obj.GetUID() {
		return b, apierrors.NewConflict(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, r.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", r.UID))
	}
	switch o := obj.(type) {
	case *corev1.Secret:
		b.Secret = o
	case *corev1.Node:
		b.Node = o
	case *corev1.Pod:
		if o.Spec.ServiceAccountName != sa.Name {
			return b, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sa.Name))
		}
		b.Pod, b.Node = o, t.nodeOf(o)
	}
	return b, nil
}

// nodeOf returns the pod's node; one without a UID if the Node object is gone.
func (t *Tokens) nodeOf(pod *corev1.Pod) *corev1.Node {
	name := pod.Spec.NodeName
	if name == "" {
		return nil
	}
	if obj, ok := t.cfg.Reader.Get(api.Nodes, api.Key{Name: name}); ok {
		return obj.(*corev1.Node)
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func (t *Tokens) onlyOurs(audiences []string) bool {
	return len(audiences) > 0 && !slices.ContainsFunc(audiences, func(a string) bool { return !slices.Contains(t.cfg.Audiences, a) })
}

// Paths and media types of the documents with which others verify our tokens (OpenID Connect Discovery 1.0).
const (
	OpenIDConfigurationPath = "/.well-known/openid-configuration"
	JWKSPath                = "/openid/v1/jwks"
	JWKSContentType         = "application/jwk-set+json"
)

// OpenIDConfiguration returns the discovery document. server is the URL by which clients reach this API server.
func (t *Tokens) OpenIDConfiguration(server string) ([]byte, error) {
	algs := make([]string, len(t.algs))
	for i, a := range t.algs {
		algs[i] = string(a)
	}
	return json.Marshal(struct {
		Issuer        string   `json:"issuer"`
		JWKSURI       string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{t.cfg.Issuer, server + JWKSPath, []string{"id_token"}, []string{"public"}, algs})
}

// JWKS returns the public keys (RFC 7517).
func (t *Tokens) JWKS() ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: t.keys.Keys})
}
