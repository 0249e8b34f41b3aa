package api

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/knarr-io/knarr/internal/api/rollout"
)

// Deployments are apps/v1 deployments.
var Deployments = declare(kind[appsv1.Deployment, apps.Deployment, appsv1.DeploymentList]{
	Resource: Resource{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"),
		Plural:           "deployments", Singular: "deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "deployments", Status: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("spec", "metadata.labels")},
		Scale: &Scale{
			Get: func(obj Object) (int32, int32, string, error) {
				d := obj.(*appsv1.Deployment)
				return replicasOf(d.Spec.Replicas), d.Status.Replicas, selectorText(d.Spec.Selector), nil
			},
			Set: func(obj Object, n int32) { obj.(*appsv1.Deployment).Spec.Replicas = &n },
		},
	},
	prepareCreate: func(d *apps.Deployment) {
		d.Status = apps.DeploymentStatus{}
		d.Generation = 1
		podutil.DropDisabledTemplateFields(&d.Spec.Template, nil)
	},
	prepareUpdate: func(d, old *apps.Deployment, sub string) {
		if sub == "status" {
			d.Spec, d.Labels = old.Spec, old.Labels
			return
		}
		d.Status = old.Status
		podutil.DropDisabledTemplateFields(&d.Spec.Template, &old.Spec.Template)
		// Annotations count, as they are copied to the replica sets.
		if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) || !apiequality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
			d.Generation = old.Generation + 1
		}
	},
	validate: func(d *apps.Deployment) field.ErrorList {
		return appsvalidation.ValidateDeployment(d, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
	},
	validateUpdate: func(d, old *apps.Deployment, sub string) field.ErrorList {
		if sub == "status" {
			return appsvalidation.ValidateDeploymentStatusUpdate(d, old)
		}
		opts := podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, &old.Spec.Template)
		return appsvalidation.ValidateDeploymentUpdate(d, old, opts)
	},
	warnings: func(d, old *apps.Deployment) []string {
		if old == nil {
			out := append(nameWarning(d.Name, "Pod names and hostnames"), templateWarnings(&d.Spec.Template, nil, "spec", "template")...)
			return append(out, rollout.Warnings(d.Annotations, nil, true)...)
		}
		if d.Generation == old.Generation {
			return nil
		}
		return append(templateWarnings(&d.Spec.Template, &old.Spec.Template, "spec", "template"), rollout.Warnings(d.Annotations, old.Annotations, true)...)
	},
})

// ReplicaSets are apps/v1 replica sets.
var ReplicaSets = declare(kind[appsv1.ReplicaSet, apps.ReplicaSet, appsv1.ReplicaSetList]{
	Resource: Resource{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		Plural:           "replicasets", Singular: "replicaset", ShortNames: []string{"rs"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "replicasets", Status: true,
		Scale: &Scale{
			Get: func(obj Object) (int32, int32, string, error) {
				rs := obj.(*appsv1.ReplicaSet)
				return replicasOf(rs.Spec.Replicas), rs.Status.Replicas, selectorText(rs.Spec.Selector), nil
			},
			Set: func(obj Object, n int32) { obj.(*appsv1.ReplicaSet).Spec.Replicas = &n },
		},
	},
	prepareCreate: func(rs *apps.ReplicaSet) {
		rs.Status = apps.ReplicaSetStatus{}
		rs.Generation = 1
		podutil.DropDisabledTemplateFields(&rs.Spec.Template, nil)
	},
	prepareUpdate: func(rs, old *apps.ReplicaSet, sub string) {
		if sub == "status" {
			rs.Spec = old.Spec
			return
		}
		rs.Status = old.Status
		podutil.DropDisabledTemplateFields(&rs.Spec.Template, &old.Spec.Template)
		if !apiequality.Semantic.DeepEqual(rs.Spec, old.Spec) {
			rs.Generation = old.Generation + 1
		}
	},
	validate: func(rs *apps.ReplicaSet) field.ErrorList {
		return appsvalidation.ValidateReplicaSet(rs, podutil.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, nil))
	},
	validateUpdate: func(rs, old *apps.ReplicaSet, sub string) field.ErrorList {
		if sub == "status" {
			return appsvalidation.ValidateReplicaSetStatusUpdate(rs, old)
		}
		opts := podutil.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, &old.Spec.Template)
		return appsvalidation.ValidateReplicaSetUpdate(rs, old, opts)
	},
	warnings: func(rs, old *apps.ReplicaSet) []string {
		if old == nil {
			return append(nameWarning(rs.Name, "Pod names and hostnames"), templateWarnings(&rs.Spec.Template, nil, "spec", "template")...)
		}
		if rs.Generation == old.Generation {
			return nil
		}
		return templateWarnings(&rs.Spec.Template, &old.Spec.Template, "spec", "template")
	},
})

// ControllerRevisions are apps/v1 controller revisions.
var ControllerRevisions = declare(kind[appsv1.ControllerRevision, apps.ControllerRevision, appsv1.ControllerRevisionList]{
	Resource: Resource{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ControllerRevision"),
		Plural:           "controllerrevisions", Singular: "controllerrevision",
		Namespaced: true, Prefix: "controllerrevisions",
	},
	validate: appsvalidation.ValidateControllerRevisionCreate,
	validateUpdate: func(obj, old *apps.ControllerRevision, _ string) field.ErrorList {
		return appsvalidation.ValidateControllerRevisionUpdate(obj, old)
	},
})

// PodTemplates are core/v1 pod templates.
var PodTemplates = declare(kind[corev1.PodTemplate, core.PodTemplate, corev1.PodTemplateList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("PodTemplate"),
		Plural:           "podtemplates", Singular: "podtemplate",
		Namespaced: true, Prefix: "podtemplates", AnswersDeleted: true,
	},
	prepareCreate: func(t *core.PodTemplate) {
		t.Generation = 1
		podutil.DropDisabledTemplateFields(&t.Template, nil)
	},
	prepareUpdate: func(t, old *core.PodTemplate, _ string) {
		podutil.DropDisabledTemplateFields(&t.Template, &old.Template)
		if !apiequality.Semantic.DeepEqual(t.Template, old.Template) {
			t.Generation = old.Generation + 1
		}
	},
	validate: func(t *core.PodTemplate) field.ErrorList {
		return corevalidation.ValidatePodTemplate(t, podutil.GetValidationOptionsFromPodTemplate(&t.Template, nil))
	},
	validateUpdate: func(t, old *core.PodTemplate, _ string) field.ErrorList {
		return corevalidation.ValidatePodTemplateUpdate(t, old, podutil.GetValidationOptionsFromPodTemplate(&t.Template, &old.Template))
	},
	warnings: func(t, old *core.PodTemplate) []string {
		if old == nil {
			return templateWarnings(&t.Template, nil, "template")
		}
		if t.Generation == old.Generation {
			return nil
		}
		return templateWarnings(&t.Template, &old.Template, "template")
	},
})

func templateWarnings(t, old *core.PodTemplateSpec, path string, more ...string) []string {
	return podutil.GetWarningsForPodTemplate(context.Background(), field.NewPath(path, more...), t, old)
}

// replicasOf reads a replica count, which is 1 where it is not defaulted yet.
func replicasOf(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// selectorText is a label selector as the scale subresource shows it.
func selectorText(s *metav1.LabelSelector) string {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return ""
	}
	return sel.String()
}
