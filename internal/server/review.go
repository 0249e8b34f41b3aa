package server

import (
	"context"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/discovery"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// review is a kind that is answered rather than stored.
type review struct {
	discovery.Review
	answer func(x *exchange, obj runtime.Object) error
}

// reviews are answered by the authenticator and the authorizer that every request passes.
var reviews = []review{
	{discovery.Review{GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"), Plural: "selfsubjectreviews", Singular: "selfsubjectreview"}, (*exchange).selfSubject},
	{discovery.Review{GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), Plural: "tokenreviews", Singular: "tokenreview"}, (*exchange).tokenReview},
	{discovery.Review{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("LocalSubjectAccessReview"), Plural: "localsubjectaccessreviews", Singular: "localsubjectaccessreview", Namespaced: true}, (*exchange).localSubjectAccess},
	{discovery.Review{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), Plural: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview"}, (*exchange).selfSubjectAccess},
	{discovery.Review{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview"), Plural: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview"}, (*exchange).selfSubjectRules},
	{discovery.Review{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), Plural: "subjectaccessreviews", Singular: "subjectaccessreview"}, (*exchange).subjectAccess},
}

func reviewKinds() []discovery.Review {
	out := make([]discovery.Review, len(reviews))
	for i, r := range reviews {
		out[i] = r.Review
	}
	return out
}

func findReview(t *target) (*review, bool) {
	for i := range reviews {
		r := &reviews[i]
		if r.Plural == t.Resource && r.GroupVersion() == t.gv() {
			return r, true
		}
	}
	return nil, false
}

// review answers one.
func (x *exchange) review(r *review) error {
	if x.t.Name != "" || (x.t.Namespace != "") != r.Namespaced {
		return errNoPath()
	}
	if x.t.Verb != "create" {
		return errMethod(x.t)
	}
	accept, ok := wire.Negotiate(x.r.Header.Get("Accept"), nil)
	if !ok {
		return errNotAcceptable()
	}
	x.accept = accept
	opts := metav1.CreateOptions{}
	if err := x.parameters(&opts); err != nil {
		return err
	}
	into, err := newOf(r.GroupVersionKind)
	if err != nil {
		return err
	}
	obj, err := x.decode(r.GroupVersionKind, into, fieldValidation(opts.FieldValidation))
	if err != nil {
		return err
	}
	if err := r.answer(x, obj); err != nil {
		return err
	}
	x.document(http.StatusCreated, obj, r.GroupVersionKind)
	return nil
}

func (x *exchange) selfSubject(obj runtime.Object) error {
	r := obj.(*authenticationv1.SelfSubjectReview)
	r.CreationTimestamp = metav1.Now()
	r.Status.UserInfo = userInfo(x.t.User)
	return nil
}

func (x *exchange) tokenReview(obj runtime.Object) error {
	r := obj.(*authenticationv1.TokenReview)
	if r.Spec.Token == "" {
		return apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	r.Status = authenticationv1.TokenReviewStatus{}
	if x.s.cfg.Tokens == nil {
		r.Status.Error = "this server knows no tokens"
		return nil
	}
	who, audiences, ok, err := x.s.cfg.Tokens.AuthenticateToken(x.r.Context(), r.Spec.Token, r.Spec.Audiences)
	if err != nil {
		r.Status.Error = err.Error()
		return nil
	}
	if ok {
		r.Status.Authenticated, r.Status.User, r.Status.Audiences = true, userInfo(who), audiences
	}
	return nil
}

func userInfo(who user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups()}
	for k, v := range who.GetExtra() {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[k] = v
	}
	return info
}

func (x *exchange) selfSubjectAccess(obj runtime.Object) error {
	r := obj.(*authorizationv1.SelfSubjectAccessReview)
	if err := oneAttribute("SelfSubjectAccessReview", r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes); err != nil {
		return err
	}
	r.Status = x.access(x.r.Context(), x.t.User, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return nil
}

func (x *exchange) subjectAccess(obj runtime.Object) error {
	r := obj.(*authorizationv1.SubjectAccessReview)
	return x.subjectAccessSpec("SubjectAccessReview", &r.Spec, &r.Status)
}

func (x *exchange) localSubjectAccess(obj runtime.Object) error {
	r := obj.(*authorizationv1.LocalSubjectAccessReview)
	if a := r.Spec.ResourceAttributes; a == nil || a.Namespace != x.t.Namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("spec.resourceAttributes.namespace must match namespace: %q", x.t.Namespace))
	}
	return x.subjectAccessSpec("LocalSubjectAccessReview", &r.Spec, &r.Status)
}

func (x *exchange) subjectAccessSpec(kind string, spec *authorizationv1.SubjectAccessReviewSpec, status *authorizationv1.SubjectAccessReviewStatus) error {
	if spec.User == "" && len(spec.Groups) == 0 {
		return apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind(kind).GroupKind(), "", field.ErrorList{
			field.Required(field.NewPath("spec", "user"), "at least one of user or group must be specified")})
	}
	if err := oneAttribute(kind, spec.ResourceAttributes, spec.NonResourceAttributes); err != nil {
		return err
	}
	who := &user.DefaultInfo{Name: spec.User, UID: spec.UID, Groups: spec.Groups, Extra: map[string][]string{}}
	for k, v := range spec.Extra {
		who.Extra[k] = v
	}
	*status = x.access(x.r.Context(), who, spec.ResourceAttributes, spec.NonResourceAttributes)
	return nil
}

// oneAttribute demands one of the two questions.
func oneAttribute(kind string, res *authorizationv1.ResourceAttributes, non *authorizationv1.NonResourceAttributes) error {
	if (res == nil) != (non == nil) {
		return nil
	}
	return apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind(kind).GroupKind(), "", field.ErrorList{
		field.Invalid(field.NewPath("spec", "resourceAttributes"), res, "exactly one of nonResourceAttributes or resourceAttributes must be specified")})
}

func (x *exchange) access(ctx context.Context, who user.Info, res *authorizationv1.ResourceAttributes, non *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	d, reason, err := x.s.cfg.Authorizer.Authorize(ctx, authz.AttributesOfReview(who, res, non))
	out := authorizationv1.SubjectAccessReviewStatus{Allowed: d == authz.Allow, Denied: d == authz.Deny, Reason: reason}
	if err != nil {
		out.EvaluationError = err.Error()
	}
	return out
}

func (x *exchange) selfSubjectRules(obj runtime.Object) error {
	r := obj.(*authorizationv1.SelfSubjectRulesReview)
	if r.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	resolver, ok := x.s.cfg.Authorizer.(authz.RuleResolver)
	if !ok {
		r.Status = authorizationv1.SubjectRulesReviewStatus{Incomplete: true, EvaluationError: "this server's authorizer cannot list rules"}
		return nil
	}
	rules, incomplete, err := resolver.RulesFor(x.t.User, r.Spec.Namespace)
	r.Status = authorizationv1.SubjectRulesReviewStatus{ResourceRules: rules.Resource, NonResourceRules: rules.NonResource, Incomplete: incomplete}
	if err != nil {
		r.Status.EvaluationError = err.Error()
	}
	return nil
}
