package api

import (
	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"

	"github.com/knarr-io/knarr/internal/api/rollout"
)

// DaemonSets are apps/v1 daemon sets.
var DaemonSets = declare(kind[appsv1.DaemonSet, apps.DaemonSet, appsv1.DaemonSetList]{
	Resource: Resource{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("DaemonSet"),
		Plural:           "daemonsets", Singular: "daemonset", ShortNames: []string{"ds"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "daemonsets", Status: true,
	},
	prepareCreate: func(d *apps.DaemonSet) {
		d.Status = apps.DaemonSetStatus{}
		d.Generation = 1
		d.Spec.TemplateGeneration = max(d.Spec.TemplateGeneration, 1)
		podutil.DropDisabledTemplateFields(&d.Spec.Template, nil)
	},
	prepareUpdate: func(d, old *apps.DaemonSet, sub string) {
		if sub == "status" {
			d.Spec = old.Spec
			return
		}
		d.Status = old.Status
		d.Spec.TemplateGeneration = old.Spec.TemplateGeneration
		podutil.DropDisabledTemplateFields(&d.Spec.Template, &old.Spec.Template)
		switch {
		case !apiequality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template):
			d.Spec.TemplateGeneration = old.Spec.TemplateGeneration + 1
			d.Generation = old.Generation + 1
		case !apiequality.Semantic.DeepEqual(d.Spec, old.Spec):
			d.Generation = old.Generation + 1
		}
	},
	validate: func(d *apps.DaemonSet) field.ErrorList {
		return appsvalidation.ValidateDaemonSet(d, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
	},
	validateUpdate: func(d, old *apps.DaemonSet, sub string) field.ErrorList {
		if sub == "status" {
			return appsvalidation.ValidateDaemonSetStatusUpdate(d, old)
		}
		opts := podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, &old.Spec.Template)
		opts.AllowInvalidLabelValueInSelector = opts.AllowInvalidLabelValueInSelector || badSelector(old.Spec.Selector)
		return appsvalidation.ValidateDaemonSetUpdate(d, old, opts)
	},
	warnings: func(d, old *apps.DaemonSet) []string {
		if old == nil {
			return append(templateWarnings(&d.Spec.Template, nil, "spec", "template"), rollout.Warnings(d.Annotations, nil, false)...)
		}
		out := rollout.Warnings(d.Annotations, old.Annotations, false)
		if d.Spec.TemplateGeneration == old.Spec.TemplateGeneration {
			return out
		}
		return append(templateWarnings(&d.Spec.Template, &old.Spec.Template, "spec", "template"), out...)
	},
})
