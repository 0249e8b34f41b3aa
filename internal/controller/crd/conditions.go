package crd

import (
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type conditionType = apiextensionsv1.CustomResourceDefinitionConditionType

// conditionOf returns the condition of a type, or nil.
func conditionOf(status *apiextensionsv1.CustomResourceDefinitionStatus, t conditionType) *condition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == t {
			return &status.Conditions[i]
		}
	}
	return nil
}

// conditionTrue reports whether there is a condition of a type and it is true.
func conditionTrue(status *apiextensionsv1.CustomResourceDefinitionStatus, t conditionType) bool {
	c := conditionOf(status, t)
	return c != nil && c.Status == apiextensionsv1.ConditionTrue
}

// setCondition sets a condition of a status that nobody else has, and its time where its status changes.
func setCondition(status *apiextensionsv1.CustomResourceDefinitionStatus, c condition, now metav1.Time) {
	c.LastTransitionTime = now
	have := conditionOf(status, c.Type)
	if have == nil {
		status.Conditions = append(status.Conditions, c)
		return
	}
	if have.Status == c.Status && !have.LastTransitionTime.IsZero() {
		c.LastTransitionTime = have.LastTransitionTime
	}
	c.ObservedGeneration = have.ObservedGeneration
	*have = c
}

// setOrRemove sets a condition, or removes the one of type t where c is nil.
func setOrRemove(status *apiextensionsv1.CustomResourceDefinitionStatus, t conditionType, c *condition, now metav1.Time) {
	if c != nil {
		setCondition(status, *c, now)
		return
	}
	status.Conditions = slices.DeleteFunc(status.Conditions, func(c condition) bool { return c.Type == t })
}
