// Package exchanged checks objects of kinds that are exchanged but never stored: what clients post to a subresource, reviews and options.
//
// What flows through it: an object that has been decoded and defaulted, and the errors of its fields. What must stay true: objects are not
// changed (TestValidateChangesNothing).
package exchanged

import (
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apimachineryvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/pkg/apis/authentication"
	authenticationvalidation "k8s.io/kubernetes/pkg/apis/authentication/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/features"

	"github.com/knarr-io/knarr/internal/api"
)

// Validate checks an object of a kind that is exchanged but never stored: what clients post to a subresource
// (Binding, Scale, TokenRequest), access reviews, and options (PodLogOptions). Kinds without rules are valid.
// api.Scheme.Default goes first.
//
// The rules for Scale and the reviews stand here, because upstream keeps its own in packages that drag in the generic
// API server.
func Validate(obj runtime.Object) field.ErrorList {
	spec := field.NewPath("spec")
	switch o := obj.(type) {
	case *corev1.Binding:
		return corevalidation.ValidatePodBinding(internal[core.Binding](o))
	case *corev1.PodLogOptions:
		return corevalidation.ValidatePodLogOptions(internal[core.PodLogOptions](o), utilfeature.DefaultFeatureGate.Enabled(features.PodLogsQuerySplitStreams))
	case *authenticationv1.TokenRequest:
		return authenticationvalidation.ValidateTokenRequest(internal[authentication.TokenRequest](o))
	case *autoscalingv1.Scale:
		return apimachineryvalidation.ValidateNonnegativeField(int64(o.Spec.Replicas), spec.Child("replicas"))
	case *authorizationv1.SelfSubjectAccessReview:
		return append(validateAttributes(o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes), noMeta(o.ObjectMeta, false)...)
	case *authorizationv1.SubjectAccessReview:
		return append(validateReview(&o.Spec), noMeta(o.ObjectMeta, false)...)
	case *authorizationv1.LocalSubjectAccessReview:
		errs := append(validateReview(&o.Spec), noMeta(o.ObjectMeta, true)...)
		if a := o.Spec.ResourceAttributes; a != nil && a.Namespace != o.Namespace {
			errs = append(errs, field.Invalid(spec.Child("resourceAttributes", "namespace"), a.Namespace, "must match metadata.namespace"))
		}
		if o.Spec.NonResourceAttributes != nil {
			errs = append(errs, field.Invalid(spec.Child("nonResourceAttributes"), o.Spec.NonResourceAttributes, "disallowed on this kind of request"))
		}
		return errs
	}
	return nil
}

// internal returns obj as upstream's internal type, sharing memory with obj.
func internal[I any](obj runtime.Object) *I {
	in := new(I)
	if err := api.Scheme.Convert(obj, in, nil); err != nil {
		panic(fmt.Sprintf("exchanged: %T does not convert to %T: %v", obj, in, err)) // the wrong types are named
	}
	return in
}

func validateReview(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateAttributes(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), spec.User, "at least one of user or group must be specified"))
	}
	return errs
}

// validateAttributes demands one of the two questions that a review may ask. Selectors narrow the first (KEP-4601); operators
// that are not known are for the authorizer to judge.
func validateAttributes(resource *authorizationv1.ResourceAttributes, other *authorizationv1.NonResourceAttributes) (errs field.ErrorList) {
	if (resource == nil) == (other == nil) {
		errs = append(errs, field.Invalid(field.NewPath("spec"), other, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	if resource == nil {
		return errs
	}
	if s, path := resource.FieldSelector, field.NewPath("spec", "resourceAttributes", "fieldSelector"); s != nil {
		errs = append(errs, oneSelector(s.RawSelector, len(s.Requirements), path)...)
		for i, r := range s.Requirements {
			opts := metav1validation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
			errs = append(errs, metav1validation.ValidateFieldSelectorRequirement(r, opts, path.Child("requirements").Index(i))...)
		}
	}
	if s, path := resource.LabelSelector, field.NewPath("spec", "resourceAttributes", "labelSelector"); s != nil {
		errs = append(errs, oneSelector(s.RawSelector, len(s.Requirements), path)...)
		for i, r := range s.Requirements {
			opts := metav1validation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
			errs = append(errs, metav1validation.ValidateLabelSelectorRequirement(r, opts, path.Child("requirements").Index(i))...)
		}
	}
	return errs
}

// oneSelector demands either the text of a selector or its requirements.
func oneSelector(raw string, requirements int, path *field.Path) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(path.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(path.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", path))}
	}
	return nil
}

// noMeta refuses metadata on kinds that are questions, not objects.
func noMeta(meta metav1.ObjectMeta, namespace bool) field.ErrorList {
	m, want := meta, "must be empty"
	m.ManagedFields = nil
	if namespace {
		m.Namespace, want = "", "must be empty except for namespace"
	}
	if apiequality.Semantic.DeepEqual(metav1.ObjectMeta{}, m) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, want)}
}
