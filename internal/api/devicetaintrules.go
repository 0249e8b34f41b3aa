package api

import (
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/resource"
	resourcevalidation "k8s.io/kubernetes/pkg/apis/resource/validation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// DeviceTaintRules are resource.k8s.io/v1 taints that administrators put on devices which match (KEP-5055).
var DeviceTaintRules = declare(kind[resourcev1.DeviceTaintRule, resource.DeviceTaintRule, resourcev1.DeviceTaintRuleList]{
	Resource: Resource{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("DeviceTaintRule"),
		Plural:           "devicetaintrules", Singular: "devicetaintrule",
		Prefix: "devicetaintrules", Status: true, Conditional: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
	},
	prepareCreate: func(r *resource.DeviceTaintRule) {
		r.Status = resource.DeviceTaintRuleStatus{}
		r.Generation = 1
	},
	prepareUpdate: prepareTaintRule,
	validate:      resourcevalidation.ValidateDeviceTaintRule,
	validateUpdate: func(r, old *resource.DeviceTaintRule, sub string) field.ErrorList {
		if sub == "status" {
			return resourcevalidation.ValidateDeviceTaintRuleStatusUpdate(r, old)
		}
		return resourcevalidation.ValidateDeviceTaintRuleUpdate(r, old)
	},
})

// prepareTaintRule keeps what the write does not set. A new effect begins now, unless its writer says when: tolerations are for a time.
func prepareTaintRule(r, old *resource.DeviceTaintRule, sub string) {
	if sub == "status" {
		r.Spec = old.Spec
		metav1.ResetObjectMetaForStatus(&r.ObjectMeta, &old.ObjectMeta)
		return
	}
	r.Status = old.Status
	if r.Spec.Taint.Effect != old.Spec.Taint.Effect && r.Spec.Taint.TimeAdded.Equal(old.Spec.Taint.TimeAdded) {
		r.Spec.Taint.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
	}
	if !apiequality.Semantic.DeepEqual(r.Spec, old.Spec) {
		r.Generation = old.Generation + 1
	}
}
