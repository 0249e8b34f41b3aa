package api

import (
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

// ReplicationControllers are core/v1 replication controllers, the older form of replica sets.
var ReplicationControllers = declare(kind[corev1.ReplicationController, core.ReplicationController, corev1.ReplicationControllerList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		Plural:           "replicationcontrollers", Singular: "replicationcontroller", ShortNames: []string{"rc"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "controllers", Status: true, LeavesDependents: true,
		Scale: &Scale{
			Get: func(obj Object) (int32, int32, string, error) {
				rc := obj.(*corev1.ReplicationController)
				return replicasOf(rc.Spec.Replicas), rc.Status.Replicas, labels.SelectorFromSet(rc.Spec.Selector).String(), nil
			},
			Set: func(obj Object, n int32) { obj.(*corev1.ReplicationController).Spec.Replicas = &n },
		},
	},
	prepareCreate: func(rc *core.ReplicationController) {
		rc.Status = core.ReplicationControllerStatus{}
		rc.Generation = 1
		podutil.DropDisabledTemplateFields(rc.Spec.Template, nil)
	},
	prepareUpdate: func(rc, old *core.ReplicationController, sub string) {
		if sub == "status" {
			rc.Spec = old.Spec
		}
		if len(rc.Labels) == 0 && rc.Spec.Template != nil { // upstream's default
			rc.Labels = maps.Clone(rc.Spec.Template.Labels)
		}
		if sub == "status" {
			return
		}
		rc.Status = old.Status
		podutil.DropDisabledTemplateFields(rc.Spec.Template, old.Spec.Template)
		if !apiequality.Semantic.DeepEqual(rc.Spec, old.Spec) {
			rc.Generation = old.Generation + 1
		}
	},
	validate: func(rc *core.ReplicationController) field.ErrorList {
		return corevalidation.ValidateReplicationController(rc, podutil.GetValidationOptionsFromPodTemplate(rc.Spec.Template, nil))
	},
	validateUpdate: func(rc, old *core.ReplicationController, sub string) field.ErrorList {
		if sub == "status" {
			return corevalidation.ValidateReplicationControllerStatusUpdate(rc, old)
		}
		opts := podutil.GetValidationOptionsFromPodTemplate(rc.Spec.Template, old.Spec.Template)
		return corevalidation.ValidateReplicationControllerUpdate(rc, old, opts)
	},
	warnings: func(rc, old *core.ReplicationController) []string {
		if old == nil {
			return append(nameWarning(rc.Name, "Pod names and hostnames"), templateWarnings(rc.Spec.Template, nil, "spec", "template")...)
		}
		if rc.Generation == old.Generation {
			return nil
		}
		return templateWarnings(rc.Spec.Template, old.Spec.Template, "spec", "template")
	},
	fields: func(rc *corev1.ReplicationController) fields.Set {
		return fields.Set{"status.replicas": strconv.Itoa(int(rc.Status.Replicas))}
	},
})
