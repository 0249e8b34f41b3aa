package cel

import (
	"context"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	upstream "k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// Version is a write in the version that a rule matched, which may be another one than that of the request.
type Version struct {
	Kind        schema.GroupVersionKind
	Resource    schema.GroupVersionResource
	Object, Old runtime.Object // nil where there is none; shared, never changed
}

// View is a write as expressions see it. It is made for one write and one version, used by one goroutine at a time, and shared by all
// policies and webhooks that matched in that version: what they look at is converted once.
type View struct {
	attrs      *upstream.VersionedAttributes
	request    *admissionv1.AdmissionRequest
	resource   schema.GroupVersionResource
	authorizer authorizer.UnconditionalAuthorizer
}

// NewView returns how expressions see a. requested is what the request itself names; z is what the variable authorizer asks.
func NewView(a *admission.Attributes, requested match.Target, v Version, z authz.Authorizer) *View {
	record := upstream.NewAttributesRecord(v.Object, v.Old, requested.Kind, a.Key.Namespace, a.Key.Name, requested.Resource, a.Subresource,
		upstream.Operation(a.Operation), a.Options, a.DryRun, a.User)
	attrs := &upstream.VersionedAttributes{
		Attributes: record, VersionedKind: v.Kind,
		VersionedObject: upstream.NewLazyObject(v.Object), VersionedOldObject: upstream.NewLazyObject(v.Old),
	}
	return &View{
		attrs:      attrs,
		request:    plugincel.CreateAdmissionRequest(record, metav1.GroupVersionResource(v.Resource), metav1.GroupVersionKind(v.Kind)),
		resource:   v.Resource,
		authorizer: asked{z},
	}
}

// Changed makes the view one of another object, which has taken the place of the one that is written.
func (v *View) Changed(obj runtime.Object) { v.attrs.UpdateObject(obj) }

// Object returns the object that is written, in the version of the view.
func (v *View) Object() runtime.Object { return v.attrs.VersionedObject.Object() }

// asked lets expressions ask an authorizer (https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library).
type asked struct{ authorizer authz.Authorizer }

// Authorize implements upstream's interface.
func (z asked) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if z.authorizer == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	d, reason, err := z.authorizer.Authorize(ctx, &authz.Attributes{
		User: a.GetUser(), Verb: a.GetVerb(), IsResource: a.IsResourceRequest(), Group: a.GetAPIGroup(), Version: a.GetAPIVersion(),
		Resource: a.GetResource(), Subresource: a.GetSubresource(), Namespace: a.GetNamespace(), Name: a.GetName(), Path: a.GetPath(),
	})
	switch d {
	case authz.Allow:
		return authorizer.DecisionAllow, reason, err
	case authz.Deny:
		return authorizer.DecisionDeny, reason, err
	default:
		return authorizer.DecisionNoOpinion, reason, err
	}
}
