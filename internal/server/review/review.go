// Package review answers what is asked and not stored: who am I, whose is this token, may somebody do this.
//
// What flows through it: a review is decoded, answered from the authenticator and the authorizer that every request passes, and sent
// back with its status filled in. What must stay true: an answer here is the decision that a request of the same user would meet.
// Tests: TestReviews (internal/server).
package review

import (
	"context"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/exchanged"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/discovery"
)

// review is a kind that is answered rather than stored.
type review struct {
	discovery.Review
	answer func(v *Reviewer, c *call.Call, obj runtime.Object) error
}

// reviews are answered by the authenticator and the authorizer that every request passes.
var reviews = []review{
	{discovery.Review{GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"), Plural: "selfsubjectreviews", Singular: "selfsubjectreview"}, (*Reviewer).selfSubject},
	{discovery.Review{GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), Plural: "tokenreviews", Singular: "tokenreview"}, (*Reviewer).tokenReview},
	{discovery.Review{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("LocalSubjectAccessReview"), Plural: "localsubjectaccessreviews", Singular: "localsubjectaccessreview", Namespaced: true}, (*Reviewer).localSubjectAccess},
	{discovery.Review{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), Plural: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview"}, (*Reviewer).selfSubjectAccess},
	{discovery.Review{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview"), Plural: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview"}, (*Reviewer).selfSubjectRules},
	{discovery.Review{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), Plural: "subjectaccessreviews", Singular: "subjectaccessreview"}, (*Reviewer).subjectAccess},
}

// Kinds are the kinds of reviews, for discovery.
func Kinds() []discovery.Review {
	out := make([]discovery.Review, len(reviews))
	for i, r := range reviews {
		out[i] = r.Review
	}
	return out
}

func find(t *call.Target) (*review, bool) {
	for i := range reviews {
		r := &reviews[i]
		if r.Plural == t.Resource && r.GroupVersion() == t.GV() {
			return r, true
		}
	}
	return nil, false
}

// Config is what a Reviewer works with. Authorizer is required.
type Config struct {
	// Tokens answers TokenReviews; nil refuses every token.
	Tokens authn.TokenAuthenticator
	// Authorizer answers access reviews. If it is an authz.RuleResolver as well, SelfSubjectRulesReviews are answered from it.
	Authorizer authz.Authorizer
}

// Reviewer answers reviews.
type Reviewer struct{ cfg Config }

// New returns a Reviewer.
func New(cfg Config) *Reviewer { return &Reviewer{cfg: cfg} }

// Serve answers a call in one of the groups of reviews.
func (v *Reviewer) Serve(c *call.Call) error {
	r, ok := find(c.Target)
	if !ok {
		return call.ErrNoPath()
	}
	if c.Target.Name != "" || (c.Target.Namespace != "") != r.Namespaced {
		return call.ErrNoPath()
	}
	if c.Target.Verb != "create" {
		return call.ErrMethod(c.Target)
	}
	c.Target.Known = true
	if err := c.Negotiate(nil); err != nil {
		return err
	}
	opts := metav1.CreateOptions{}
	if err := c.Parameters(&opts); err != nil {
		return err
	}
	into, err := api.Scheme.New(r.GroupVersionKind)
	if err != nil {
		return err
	}
	obj, err := c.Decode(r.GroupVersionKind, into, call.FieldValidation(opts.FieldValidation))
	if err != nil {
		return err
	}
	if o, ok := obj.(api.Object); ok && r.Namespaced && o.GetNamespace() == "" {
		o.SetNamespace(c.Target.Namespace)
	}
	if errs := exchanged.Validate(obj); len(errs) > 0 {
		return apierrors.NewInvalid(r.GroupKind(), "", errs)
	}
	if err := r.answer(v, c, obj); err != nil {
		return err
	}
	c.Document(http.StatusCreated, obj, r.GroupVersionKind)
	return nil
}

func (v *Reviewer) selfSubject(c *call.Call, obj runtime.Object) error {
	r := obj.(*authenticationv1.SelfSubjectReview)
	r.CreationTimestamp = metav1.Now()
	r.Status.UserInfo = userInfo(c.Target.User)
	return nil
}

func (v *Reviewer) tokenReview(c *call.Call, obj runtime.Object) error {
	_, err := v.ReviewToken(c.R.Context(), obj.(*authenticationv1.TokenReview))
	return err
}

// ReviewToken fills in the status of r, which it returns.
func (v *Reviewer) ReviewToken(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	if r.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	r.Status = authenticationv1.TokenReviewStatus{}
	if v.cfg.Tokens == nil {
		r.Status.Error = "this server knows no tokens"
		return r, nil
	}
	who, audiences, ok, err := v.cfg.Tokens.AuthenticateToken(ctx, r.Spec.Token, r.Spec.Audiences)
	switch {
	case err != nil:
		r.Status.Error = err.Error()
	case ok:
		r.Status.Authenticated, r.Status.User, r.Status.Audiences = true, userInfo(who), audiences
	}
	return r, nil
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

func (v *Reviewer) selfSubjectAccess(c *call.Call, obj runtime.Object) error {
	r := obj.(*authorizationv1.SelfSubjectAccessReview)
	r.Status = v.access(c.R.Context(), c.Target.User, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return nil
}

func (v *Reviewer) subjectAccess(c *call.Call, obj runtime.Object) error {
	_, err := v.ReviewAccess(c.R.Context(), obj.(*authorizationv1.SubjectAccessReview))
	return err
}

// ReviewAccess fills in the status of r, which it returns.
func (v *Reviewer) ReviewAccess(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	r.Status = v.subjectAccessSpec(ctx, &r.Spec)
	return r, nil
}

func (v *Reviewer) localSubjectAccess(c *call.Call, obj runtime.Object) error {
	r := obj.(*authorizationv1.LocalSubjectAccessReview)
	if r.Namespace != c.Target.Namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("spec.resourceAttributes.namespace must match namespace: %v", c.Target.Namespace))
	}
	r.Status = v.subjectAccessSpec(c.R.Context(), &r.Spec)
	return nil
}

func (v *Reviewer) subjectAccessSpec(ctx context.Context, spec *authorizationv1.SubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus {
	who := &user.DefaultInfo{Name: spec.User, UID: spec.UID, Groups: spec.Groups, Extra: map[string][]string{}}
	for k, v := range spec.Extra {
		who.Extra[k] = v
	}
	return v.access(ctx, who, spec.ResourceAttributes, spec.NonResourceAttributes)
}

func (v *Reviewer) access(ctx context.Context, who user.Info, res *authorizationv1.ResourceAttributes, non *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	d, reason, err := v.cfg.Authorizer.Authorize(ctx, authz.AttributesOfReview(who, res, non))
	out := authorizationv1.SubjectAccessReviewStatus{Allowed: d == authz.Allow, Denied: d == authz.Deny, Reason: reason}
	if err != nil {
		out.EvaluationError = err.Error()
	}
	return out
}

func (v *Reviewer) selfSubjectRules(c *call.Call, obj runtime.Object) error {
	r := obj.(*authorizationv1.SelfSubjectRulesReview)
	if r.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	resolver, ok := v.cfg.Authorizer.(authz.RuleResolver)
	if !ok {
		r.Status = authorizationv1.SubjectRulesReviewStatus{Incomplete: true, EvaluationError: "this server's authorizer cannot list rules"}
		return nil
	}
	rules, incomplete, err := resolver.RulesFor(c.Target.User, r.Spec.Namespace)
	r.Status = authorizationv1.SubjectRulesReviewStatus{ResourceRules: rules.Resource, NonResourceRules: rules.NonResource, Incomplete: incomplete}
	if err != nil {
		r.Status.EvaluationError = err.Error()
	}
	return nil
}
