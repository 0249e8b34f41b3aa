package plugins

import (
	"context"
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// ParamAccess lets users write policies about parameters, and bindings that name them, only if they may read these: what a policy
// says could show them.
type ParamAccess struct {
	Reader     admission.Reader
	Catalog    func() *api.Catalog // of the moment
	Authorizer authz.Authorizer
}

// Name implements admission.Plugin.
func (ParamAccess) Name() string { return "ParamAccess" }

// Admit implements admission.Plugin.
func (ParamAccess) Admit(context.Context, *admission.Attributes) error { return nil }

// Validate implements admission.Plugin.
func (p ParamAccess) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Resource.Group != admissionregistrationv1.GroupName || a.Object == nil || a.Subresource != "" ||
		a.User == nil || slices.Contains(a.User.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	var path *field.Path
	var err error
	switch o := a.Object.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		path = field.NewPath("spec", "paramKind")
		old, _ := a.Old.(*admissionregistrationv1.ValidatingAdmissionPolicy)
		if old == nil || !equality.Semantic.DeepEqual(o.Spec.ParamKind, old.Spec.ParamKind) {
			err = p.kind(ctx, a.User, o.Spec.ParamKind)
		}
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		path = field.NewPath("spec", "paramKind")
		old, _ := a.Old.(*admissionregistrationv1.MutatingAdmissionPolicy)
		if old == nil || !equality.Semantic.DeepEqual(o.Spec.ParamKind, old.Spec.ParamKind) {
			err = p.kind(ctx, a.User, o.Spec.ParamKind)
		}
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		path = field.NewPath("spec", "paramRef")
		old, _ := a.Old.(*admissionregistrationv1.ValidatingAdmissionPolicyBinding)
		if old == nil || old.Spec.PolicyName != o.Spec.PolicyName || !equality.Semantic.DeepEqual(o.Spec.ParamRef, old.Spec.ParamRef) {
			err = p.ref(ctx, a.User, api.ValidatingAdmissionPolicies, o.Spec.PolicyName, o.Spec.ParamRef)
		}
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		path = field.NewPath("spec", "paramRef")
		old, _ := a.Old.(*admissionregistrationv1.MutatingAdmissionPolicyBinding)
		if old == nil || old.Spec.PolicyName != o.Spec.PolicyName || !equality.Semantic.DeepEqual(o.Spec.ParamRef, old.Spec.ParamRef) {
			err = p.ref(ctx, a.User, api.MutatingAdmissionPolicies, o.Spec.PolicyName, o.Spec.ParamRef)
		}
	}
	if err != nil {
		return apierrors.NewInvalid(a.Resource.GroupKind(), a.Key.Name, field.ErrorList{field.Forbidden(path, err.Error())})
	}
	return nil
}

// kind returns an error unless a user may read all objects of a kind.
func (p ParamAccess) kind(ctx context.Context, who user.Info, kind *admissionregistrationv1.ParamKind) error {
	if kind == nil {
		return nil
	}
	asked := p.resource(kind)
	asked.User, asked.Verb, asked.Name, asked.Namespace = who, "get", "*", "*"
	if p.may(ctx, asked) {
		return nil
	}
	return fmt.Errorf(`user %v must have "get" permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)`, who, kind.Kind, kind.APIVersion)
}

// ref returns an error unless a user may read the parameters of a binding.
func (p ParamAccess) ref(ctx context.Context, who user.Info, policies *api.Resource, policy string, ref *admissionregistrationv1.ParamRef) error {
	if ref == nil {
		return nil
	}
	kind, known := p.kindOf(policies, policy)
	asked := p.resource(kind)
	asked.User, asked.Verb, asked.Name, asked.Namespace = who, "get", ref.Name, ref.Namespace
	if ref.Name == "" {
		asked.Verb = "list"
	}
	switch {
	case p.may(ctx, asked):
		return nil
	case !known:
		return fmt.Errorf(`unable to get policy %s to determine minimum required permissions and user %v does not have "%v" permission for all groups, versions and resources`,
			policy, who, asked.Verb)
	case kind != nil && asked.Resource == "*":
		return fmt.Errorf(`unable to resolve paramKind %v to determine minimum required permissions and user %v does not have "%v" permission for all groups, versions and resources`,
			kind, who, asked.Verb)
	}
	return fmt.Errorf(`user %v does not have "%v" permission on the object referenced by paramRef`, who, asked.Verb)
}

// kindOf returns the kind of the parameters of a policy, and whether there is such a policy.
func (p ParamAccess) kindOf(policies *api.Resource, name string) (*admissionregistrationv1.ParamKind, bool) {
	obj, ok := p.Reader.Get(policies, api.Key{Name: name})
	switch o := obj.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		return o.Spec.ParamKind, true
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		return o.Spec.ParamKind, true
	}
	return nil, ok
}

// resource returns what is to be authorized for objects of a kind: everything, as far as it is not known which resource that is.
func (p ParamAccess) resource(kind *admissionregistrationv1.ParamKind) *authz.Attributes {
	a := &authz.Attributes{IsResource: true, Group: "*", Version: "*", Resource: "*"}
	if kind == nil {
		return a
	}
	gvk := schema.FromAPIVersionAndKind(kind.APIVersion, kind.Kind)
	a.Group, a.Version = gvk.Group, gvk.Version
	if res := p.Catalog().Kind(gvk); res != nil {
		a.Resource = res.Plural
	}
	return a
}

func (p ParamAccess) may(ctx context.Context, a *authz.Attributes) bool {
	d, _, err := p.Authorizer.Authorize(ctx, a)
	return err == nil && d == authz.Allow
}
