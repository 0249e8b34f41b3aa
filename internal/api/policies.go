package api

import (
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	"k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
)

// ValidatingAdmissionPolicies are admissionregistration.k8s.io/v1 rules in CEL about what may be written (KEP-3488). server/admission/policy
// evaluates them for writes that a binding puts under them; internal/controller/policycheck writes their status.
var ValidatingAdmissionPolicies = declare(kind[
	admissionregistrationv1.ValidatingAdmissionPolicy, admissionregistration.ValidatingAdmissionPolicy,
	admissionregistrationv1.ValidatingAdmissionPolicyList,
]{
	Resource: admissionResource("ValidatingAdmissionPolicy", "validatingadmissionpolicies", true),
	prepareCreate: func(p *admissionregistration.ValidatingAdmissionPolicy) {
		p.Status = admissionregistration.ValidatingAdmissionPolicyStatus{}
		p.Generation = 1
	},
	prepareUpdate: func(p, old *admissionregistration.ValidatingAdmissionPolicy, sub string) {
		if sub == "status" {
			p.Spec = old.Spec
			return
		}
		p.Status = old.Status
		if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
			p.Generation = old.Generation + 1
		}
	},
	validate: func(p *admissionregistration.ValidatingAdmissionPolicy) field.ErrorList {
		return append(validation.ValidateValidatingAdmissionPolicy(p), fileNameErrors(p.Name)...)
	},
	validateUpdate: func(p, old *admissionregistration.ValidatingAdmissionPolicy, sub string) field.ErrorList {
		if sub == "status" {
			return validation.ValidateValidatingAdmissionPolicyStatusUpdate(p, old)
		}
		return validation.ValidateValidatingAdmissionPolicyUpdate(p, old)
	},
	warnings: func(p, old *admissionregistration.ValidatingAdmissionPolicy) []string {
		return fileNameWarnings(p.Name, old != nil)
	},
})

// ValidatingAdmissionPolicyBindings say where ValidatingAdmissionPolicies apply, with which parameters, and what follows when they are broken.
var ValidatingAdmissionPolicyBindings = declare(kind[
	admissionregistrationv1.ValidatingAdmissionPolicyBinding, admissionregistration.ValidatingAdmissionPolicyBinding,
	admissionregistrationv1.ValidatingAdmissionPolicyBindingList,
]{
	Resource:      admissionResource("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", false),
	prepareCreate: func(b *admissionregistration.ValidatingAdmissionPolicyBinding) { b.Generation = 1 },
	prepareUpdate: func(b, old *admissionregistration.ValidatingAdmissionPolicyBinding, _ string) {
		if !apiequality.Semantic.DeepEqual(b.Spec, old.Spec) {
			b.Generation = old.Generation + 1
		}
	},
	validate: func(b *admissionregistration.ValidatingAdmissionPolicyBinding) field.ErrorList {
		return append(validation.ValidateValidatingAdmissionPolicyBinding(b), fileNameErrors(b.Name)...)
	},
	validateUpdate: func(b, old *admissionregistration.ValidatingAdmissionPolicyBinding, _ string) field.ErrorList {
		return validation.ValidateValidatingAdmissionPolicyBindingUpdate(b, old)
	},
	warnings: func(b, old *admissionregistration.ValidatingAdmissionPolicyBinding) []string {
		return fileNameWarnings(b.Name, old != nil)
	},
})

// MutatingAdmissionPolicies are admissionregistration.k8s.io/v1 changes, in CEL, to what is written (KEP-3962).
var MutatingAdmissionPolicies = declare(kind[
	admissionregistrationv1.MutatingAdmissionPolicy, admissionregistration.MutatingAdmissionPolicy,
	admissionregistrationv1.MutatingAdmissionPolicyList,
]{
	Resource:      admissionResource("MutatingAdmissionPolicy", "mutatingadmissionpolicies", false),
	prepareCreate: func(p *admissionregistration.MutatingAdmissionPolicy) { p.Generation = 1 },
	prepareUpdate: func(p, old *admissionregistration.MutatingAdmissionPolicy, _ string) {
		if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
			p.Generation = old.Generation + 1
		}
	},
	validate: func(p *admissionregistration.MutatingAdmissionPolicy) field.ErrorList {
		return append(validation.ValidateMutatingAdmissionPolicy(p), fileNameErrors(p.Name)...)
	},
	validateUpdate: func(p, old *admissionregistration.MutatingAdmissionPolicy, _ string) field.ErrorList {
		return validation.ValidateMutatingAdmissionPolicyUpdate(p, old)
	},
	warnings: func(p, old *admissionregistration.MutatingAdmissionPolicy) []string {
		return fileNameWarnings(p.Name, old != nil)
	},
})

// MutatingAdmissionPolicyBindings say where MutatingAdmissionPolicies apply, and with which parameters.
var MutatingAdmissionPolicyBindings = declare(kind[
	admissionregistrationv1.MutatingAdmissionPolicyBinding, admissionregistration.MutatingAdmissionPolicyBinding,
	admissionregistrationv1.MutatingAdmissionPolicyBindingList,
]{
	Resource:      admissionResource("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", false),
	prepareCreate: func(b *admissionregistration.MutatingAdmissionPolicyBinding) { b.Generation = 1 },
	prepareUpdate: func(b, old *admissionregistration.MutatingAdmissionPolicyBinding, _ string) {
		if !apiequality.Semantic.DeepEqual(b.Spec, old.Spec) {
			b.Generation = old.Generation + 1
		}
	},
	validate: func(b *admissionregistration.MutatingAdmissionPolicyBinding) field.ErrorList {
		return append(validation.ValidateMutatingAdmissionPolicyBinding(b), fileNameErrors(b.Name)...)
	},
	validateUpdate: func(b, old *admissionregistration.MutatingAdmissionPolicyBinding, _ string) field.ErrorList {
		return validation.ValidateMutatingAdmissionPolicyBindingUpdate(b, old)
	},
	warnings: func(b, old *admissionregistration.MutatingAdmissionPolicyBinding) []string {
		return fileNameWarnings(b.Name, old != nil)
	},
})

// admissionResource is what policies and bindings have alike.
func admissionResource(kind, plural string, status bool) Resource {
	gvk := schema.GroupVersionKind{Group: admissionregistrationv1.GroupName, Version: "v1", Kind: kind}
	return Resource{
		GroupVersionKind: gvk, Plural: plural, Singular: strings.ToLower(kind), Categories: []string{"api-extensions"}, Prefix: plural,
		Status: status, Conditional: true,
	}
}
