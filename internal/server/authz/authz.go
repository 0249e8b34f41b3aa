// Package authz decides whether a user may do what a request asks for: by membership of system:masters, by the RBAC
// objects in the shared copy, and, for nodes, by the pods that run on them.
//
// What flows through it: [Attributes] describe one request; a [Union] of authorizers allows or refuses it; changes of
// RBAC objects flow into the [RBAC] index as they are stored. [Forbidden] words the refusal, [Impersonate] checks the
// Impersonate-* headers, [Bootstrap] keeps the default roles in place. What must stay true: what no authorizer allows is
// refused; deciding reads memory only and never lists objects of the whole cluster; nobody can grant what they
// do not hold ([RBAC.Covers]). Tests: TestCovers, TestIndexEqualsEvaluation, TestForbiddenWords.
package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/request"
)

// Decision is what an authorizer says.
type Decision int

// Decisions. NoOpinion leaves it to the next authorizer and, in the end, means no.
const (
	NoOpinion Decision = iota
	Allow
	Deny
)

// Attributes describe one request to authorize. Resource requests have IsResource set and no Path; others have a Path and
// the lower-case HTTP method as Verb.
type Attributes struct {
	User        user.Info
	Verb        string
	IsResource  bool
	Group       string
	Version     string
	Resource    string // plural
	Subresource string // "log" of "pods/log"
	Namespace   string // empty for cluster-scoped objects and for all namespaces
	Name        string
	Path        string

	// Fields is the field selector of a list, watch or deletecollection, where there is one: a node may list only its own
	// pods (KEP-4601).
	Fields fields.Selector
}

// AttributesOf returns what has to be authorized for a request.
func AttributesOf(i *request.Info) *Attributes {
	a := &Attributes{User: i.User, Verb: i.Verb, IsResource: i.IsResource}
	if !i.IsResource {
		a.Path = i.Path
		return a
	}
	a.Group, a.Version, a.Resource, a.Subresource = i.Group, i.Version, i.Resource, i.Subresource
	a.Namespace, a.Name = i.Namespace, i.Name
	return a
}

// AttributesOfReview returns what the spec of a SubjectAccessReview (of any of its four kinds) asks about. who is the
// user it names, or the asker for the Self kinds.
func AttributesOfReview(who user.Info, res *authorizationv1.ResourceAttributes, non *authorizationv1.NonResourceAttributes) *Attributes {
	switch {
	case res != nil:
		return &Attributes{User: who, IsResource: true, Verb: res.Verb, Group: res.Group, Version: res.Version,
			Resource: res.Resource, Subresource: res.Subresource, Namespace: res.Namespace, Name: res.Name}
	case non != nil:
		return &Attributes{User: who, Verb: non.Verb, Path: non.Path}
	}
	return &Attributes{User: who}
}

// Authorizer decides about requests. reason is for people.
type Authorizer interface {
	Authorize(ctx context.Context, a *Attributes) (d Decision, reason string, err error)
}

// RuleResolver lists what a user may do in a namespace, for SelfSubjectRulesReview. incomplete says that there may be
// more; err says why.
type RuleResolver interface {
	RulesFor(who user.Info, namespace string) (rules Rules, incomplete bool, err error)
}

// Rules are what a user may do.
type Rules struct {
	Resource    []authorizationv1.ResourceRule
	NonResource []authorizationv1.NonResourceRule
}

// Union asks each authorizer in turn and takes the first answer that is not NoOpinion.
type Union []Authorizer

// Authorize implements Authorizer.
func (u Union) Authorize(ctx context.Context, a *Attributes) (Decision, string, error) {
	var reasons []string
	var first error
	for _, z := range u {
		d, reason, err := z.Authorize(ctx, a)
		if d != NoOpinion {
			return d, reason, err
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return NoOpinion, strings.Join(reasons, "\n"), first
}

// RulesFor implements RuleResolver with the rules of all members that can list theirs.
func (u Union) RulesFor(who user.Info, namespace string) (all Rules, incomplete bool, err error) {
	for _, z := range u {
		r, ok := z.(RuleResolver)
		if !ok {
			continue
		}
		rules, more, e := r.RulesFor(who, namespace)
		all.Resource = append(all.Resource, rules.Resource...)
		all.NonResource = append(all.NonResource, rules.NonResource...)
		incomplete = incomplete || more
		if err == nil {
			err = e
		}
	}
	return all, incomplete, err
}

// Masters allows everything to members of system:masters, so that an administrator's certificate works whatever the
// state of the RBAC objects.
type Masters struct{}

// Authorize implements Authorizer.
func (Masters) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	if a.User != nil && slices.Contains(a.User.GetGroups(), user.SystemPrivilegedGroup) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}

// RulesFor implements RuleResolver.
func (Masters) RulesFor(who user.Info, _ string) (Rules, bool, error) {
	if !slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
		return Rules{}, false, nil
	}
	any := []string{"*"}
	return Rules{
		Resource:    []authorizationv1.ResourceRule{{Verbs: any, APIGroups: any, Resources: any}},
		NonResource: []authorizationv1.NonResourceRule{{Verbs: any, NonResourceURLs: any}},
	}, false, nil
}

// Check authorizes a and returns nil, or the 403 to answer with.
func Check(ctx context.Context, z Authorizer, a *Attributes) error {
	d, reason, err := z.Authorize(ctx, a)
	if d == Allow {
		return nil
	}
	if err != nil && reason == "" {
		reason = err.Error()
	}
	return Forbidden(a, reason)
}

// Forbidden is the 403 for a refused request, in Kubernetes' words.
func Forbidden(a *Attributes, reason string) *apierrors.StatusError {
	msg := describe(a)
	if reason != "" {
		msg += ": " + reason
	}
	if !a.IsResource {
		return apierrors.NewForbidden(schema.GroupResource{}, "", fmt.Errorf("%s", msg))
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.Group, Resource: a.Resource}, a.Name, fmt.Errorf("%s", msg))
}

func describe(a *Attributes) string {
	name := ""
	if a.User != nil {
		name = a.User.GetName()
	}
	if !a.IsResource {
		return fmt.Sprintf("User %q cannot %s path %q", name, a.Verb, a.Path)
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	if a.Namespace != "" {
		return fmt.Sprintf("User %q cannot %s resource %q in API group %q in the namespace %q", name, a.Verb, resource, a.Group, a.Namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q at the cluster scope", name, a.Verb, resource, a.Group)
}
