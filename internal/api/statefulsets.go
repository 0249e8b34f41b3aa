package api

import (
	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	pvcutil "k8s.io/kubernetes/pkg/api/persistentvolumeclaim"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/features"

	"github.com/knarr-io/knarr/internal/api/rollout"
)

// StatefulSets are apps/v1 stateful sets.
var StatefulSets = declare(kind[appsv1.StatefulSet, apps.StatefulSet, appsv1.StatefulSetList]{
	Resource: Resource{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("StatefulSet"),
		Plural:           "statefulsets", Singular: "statefulset", ShortNames: []string{"sts"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "statefulsets", Status: true,
		Scale: &Scale{
			Get: func(obj Object) (int32, int32, string, error) {
				s := obj.(*appsv1.StatefulSet)
				return replicasOf(s.Spec.Replicas), s.Status.Replicas, selectorText(s.Spec.Selector), nil
			},
			Set: func(obj Object, n int32) { obj.(*appsv1.StatefulSet).Spec.Replicas = &n },
		},
	},
	prepareCreate: func(s *apps.StatefulSet) {
		s.Status = apps.StatefulSetStatus{}
		s.Generation = 1
		podutil.DropDisabledTemplateFields(&s.Spec.Template, nil)
	},
	prepareUpdate: func(s, old *apps.StatefulSet, sub string) {
		if sub == "status" {
			s.Spec = old.Spec
			return
		}
		s.Status = old.Status
		podutil.DropDisabledTemplateFields(&s.Spec.Template, &old.Spec.Template)
		if !apiequality.Semantic.DeepEqual(s.Spec, old.Spec) {
			s.Generation = old.Generation + 1
		}
	},
	validate: func(s *apps.StatefulSet) field.ErrorList {
		setOpts := appsvalidation.StatefulSetValidationOptions{AllowStatefulSetRecreateStrategy: enabled(features.StatefulSetRecreateStrategy)}
		return appsvalidation.ValidateStatefulSet(s, setOpts, podutil.GetValidationOptionsFromPodTemplate(&s.Spec.Template, nil))
	},
	validateUpdate: func(s, old *apps.StatefulSet, sub string) field.ErrorList {
		if sub == "status" {
			return appsvalidation.ValidateStatefulSetStatusUpdate(s, old)
		}
		setOpts := appsvalidation.StatefulSetValidationOptions{
			// Neither can change: what is stored, from whatever version, stays valid.
			AllowInvalidServiceName: true, SkipValidateVolumeClaimTemplates: true,
			AllowStatefulSetRecreateStrategy: enabled(features.StatefulSetRecreateStrategy) || old.Spec.UpdateStrategy.Type == apps.RecreateStatefulSetStrategyType,
		}
		opts := podutil.GetValidationOptionsFromPodTemplate(&s.Spec.Template, &old.Spec.Template)
		return appsvalidation.ValidateStatefulSetUpdate(s, old, setOpts, opts)
	},
	warnings: statefulSetWarnings,
})

func statefulSetWarnings(s, old *apps.StatefulSet) []string {
	var out []string
	claims := field.NewPath("spec", "volumeClaimTemplates")
	switch {
	case old == nil:
		out = append(templateWarnings(&s.Spec.Template, nil, "spec", "template"), rollout.Warnings(s.Annotations, nil, false)...)
	case s.Generation != old.Generation:
		out = templateWarnings(&s.Spec.Template, &old.Spec.Template, "spec", "template")
	}
	if old != nil {
		out = append(out, rollout.Warnings(s.Annotations, old.Annotations, false)...)
	}
	for i, claim := range s.Spec.VolumeClaimTemplates {
		at := claims.Index(i)
		if old != nil {
			at = at.Child("Spec") // as upstream words it
		}
		out = append(out, pvcutil.GetWarningsForPersistentVolumeClaimSpec(at, claim.Spec)...)
	}
	if n := s.Spec.RevisionHistoryLimit; n != nil && *n < 0 {
		out = append(out, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return out
}
