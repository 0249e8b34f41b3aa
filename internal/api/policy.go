package api

import (
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	nodeapi "k8s.io/kubernetes/pkg/api/node"
	"k8s.io/kubernetes/pkg/apis/node"
	nodevalidation "k8s.io/kubernetes/pkg/apis/node/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	schedulingvalidation "k8s.io/kubernetes/pkg/apis/scheduling/validation"
)

// PodDisruptionBudgets are policy/v1 disruption budgets.
var PodDisruptionBudgets = declare(kind[policyv1.PodDisruptionBudget, policy.PodDisruptionBudget, policyv1.PodDisruptionBudgetList]{
	Resource: Resource{
		GroupVersionKind: policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
		Plural:           "poddisruptionbudgets", Singular: "poddisruptionbudget", ShortNames: []string{"pdb"},
		Namespaced: true, Prefix: "poddisruptionbudgets", Status: true, Conditional: true,
	},
	prepareCreate: func(b *policy.PodDisruptionBudget) {
		b.Status = policy.PodDisruptionBudgetStatus{}
		b.Generation = 1
		stripBudgetSelector(b, nil)
	},
	prepareUpdate: func(b, old *policy.PodDisruptionBudget, sub string) {
		if sub == "status" {
			b.Spec = old.Spec
			return
		}
		b.Status = old.Status
		if !apiequality.Semantic.DeepEqual(b.Spec, old.Spec) {
			b.Generation = old.Generation + 1
		}
		stripBudgetSelector(b, old)
	},
	validate: func(b *policy.PodDisruptionBudget) field.ErrorList {
		return policyvalidation.ValidatePodDisruptionBudget(b, policyvalidation.PodDisruptionBudgetValidationOptions{})
	},
	validateUpdate: func(b, old *policy.PodDisruptionBudget, sub string) field.ErrorList {
		if sub == "status" {
			return policyvalidation.ValidatePodDisruptionBudgetStatusUpdate(b.Status, old.Status, field.NewPath("status"), policyv1.SchemeGroupVersion)
		}
		return policyvalidation.ValidatePodDisruptionBudget(b, policyvalidation.PodDisruptionBudgetValidationOptions{
			AllowInvalidLabelValueInSelector: badSelector(old.Spec.Selector),
		})
	},
})

// stripBudgetSelector keeps the label by which upstream's internal type tells "match all" and "match none" of the old
// v1beta1 apart from reaching users' selectors.
func stripBudgetSelector(b, old *policy.PodDisruptionBudget) {
	if old != nil && apiequality.Semantic.DeepEqual(old.Spec.Selector, b.Spec.Selector) {
		return
	}
	if apiequality.Semantic.DeepEqual(b.Spec.Selector, policy.NonV1beta1MatchNoneSelector) ||
		apiequality.Semantic.DeepEqual(b.Spec.Selector, policy.NonV1beta1MatchAllSelector) {
		return
	}
	policy.StripPDBV1beta1Label(b.Spec.Selector)
}

// badSelector tells that a stored selector holds label values that are refused today; an update may keep them.
func badSelector(s *metav1.LabelSelector) bool {
	return s != nil && len(metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0
}

// PriorityClasses are scheduling.k8s.io/v1 priority classes.
var PriorityClasses = declare(kind[schedulingv1.PriorityClass, scheduling.PriorityClass, schedulingv1.PriorityClassList]{
	Resource: Resource{
		GroupVersionKind: schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"),
		Plural:           "priorityclasses", Singular: "priorityclass", ShortNames: []string{"pc"},
		Prefix: "priorityclasses",
	},
	prepareCreate: func(pc *scheduling.PriorityClass) { pc.Generation = 1 },
	validate:      schedulingvalidation.ValidatePriorityClass,
	validateUpdate: func(pc, old *scheduling.PriorityClass, _ string) field.ErrorList {
		return schedulingvalidation.ValidatePriorityClassUpdate(pc, old)
	},
})

// RuntimeClasses are node.k8s.io/v1 runtime classes.
var RuntimeClasses = declare(kind[nodev1.RuntimeClass, node.RuntimeClass, nodev1.RuntimeClassList]{
	Resource: Resource{
		GroupVersionKind: nodev1.SchemeGroupVersion.WithKind("RuntimeClass"),
		Plural:           "runtimeclasses", Singular: "runtimeclass",
		Prefix: "runtimeclasses", CreateOnUpdate: true, Conditional: true,
	},
	validate: nodevalidation.ValidateRuntimeClass,
	validateUpdate: func(rc, old *node.RuntimeClass, _ string) field.ErrorList {
		return append(nodevalidation.ValidateRuntimeClass(rc), nodevalidation.ValidateRuntimeClassUpdate(rc, old)...)
	},
	warnings:  func(rc, _ *node.RuntimeClass) []string { return nodeapi.GetWarningsForRuntimeClass(rc) },
	normalize: nodevalidation.NodeNormalizationRules,
})
