package api

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/features"
)

// HorizontalPodAutoscalers are autoscaling/v2 horizontal pod autoscalers, which autoscaling/v1 serves, too.
var HorizontalPodAutoscalers = declare(kind[autoscalingv2.HorizontalPodAutoscaler, autoscaling.HorizontalPodAutoscaler, autoscalingv2.HorizontalPodAutoscalerList]{
	Resource: Resource{
		GroupVersionKind: autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		Versions:         []schema.GroupVersion{autoscalingv1.SchemeGroupVersion},
		Plural:           "horizontalpodautoscalers", Singular: "horizontalpodautoscaler", ShortNames: []string{"hpa"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "horizontalpodautoscalers", Status: true,
	},
	prepareCreate: func(a *autoscaling.HorizontalPodAutoscaler) {
		a.Status = autoscaling.HorizontalPodAutoscalerStatus{}
		a.Generation = 1
	},
	prepareUpdate: func(a, old *autoscaling.HorizontalPodAutoscaler, sub string) {
		if sub == "status" {
			a.Spec = old.Spec
			return
		}
		a.Status = old.Status
		if !apiequality.Semantic.DeepEqual(a.Spec, old.Spec) {
			a.Generation = old.Generation + 1
		}
	},
	validate: func(a *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
		return autoscalingvalidation.ValidateHorizontalPodAutoscaler(a, autoscalerOptions(a, nil))
	},
	validateUpdate: func(a, old *autoscaling.HorizontalPodAutoscaler, sub string) field.ErrorList {
		if sub == "status" {
			return autoscalingvalidation.ValidateHorizontalPodAutoscalerStatusUpdate(a, old)
		}
		return autoscalingvalidation.ValidateHorizontalPodAutoscalerUpdate(a, old, autoscalerOptions(a, old))
	},
	options: map[string]bool{string(features.HPAScaleToZero): enabled(features.HPAScaleToZero)},
})

// autoscalerOptions is what validation allows in a: more where the old autoscaler, if there is one, had it already.
func autoscalerOptions(a, old *autoscaling.HorizontalPodAutoscaler) autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions {
	opts := autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions{
		ScaleTargetRefValidationOptions: autoscalingvalidation.CrossVersionObjectReferenceValidationOptions{RequiredCoveredByDeclarative: true},
		ObjectMetricsValidationOptions:  autoscalingvalidation.CrossVersionObjectReferenceValidationOptions{AllowEmptyAPIGroup: true},
	}
	if !enabled(features.HPAScaleToZero) {
		opts.MinReplicasLowerBound = 1
	}
	target := a.Spec.ScaleTargetRef
	switch {
	case old != nil && old.Spec.ScaleTargetRef.APIVersion == target.APIVersion && old.Spec.ScaleTargetRef.Kind == target.Kind:
		opts.ScaleTargetRefValidationOptions.AllowInvalidAPIVersion = true
	case target.Kind == "ReplicationController": // the only one of the group without a name that can be scaled
		opts.ScaleTargetRefValidationOptions.AllowEmptyAPIGroup = true
	}
	if old == nil {
		return opts
	}
	for _, m := range old.Spec.Metrics {
		if m.Type != autoscaling.ObjectMetricSourceType || m.Object == nil {
			continue
		}
		if autoscalingvalidation.ValidateAPIVersion(m.Object.DescribedObject, opts.ObjectMetricsValidationOptions) != nil {
			opts.ObjectMetricsValidationOptions.AllowInvalidAPIVersion = true
			break
		}
	}
	return opts
}
