package api

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/flowcontrol"
	flowcontrolvalidation "k8s.io/kubernetes/pkg/apis/flowcontrol/validation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// FlowSchemas are flowcontrol.apiserver.k8s.io/v1 flow schemas: they say at which priority level requests are served, and whose
// requests are one flow. internal/server/fair goes by them.
var FlowSchemas = declare(kind[flowcontrolv1.FlowSchema, flowcontrol.FlowSchema, flowcontrolv1.FlowSchemaList]{
	Resource: Resource{
		GroupVersionKind: flowcontrolv1.SchemeGroupVersion.WithKind("FlowSchema"),
		Plural:           "flowschemas", Singular: "flowschema",
		Prefix: "flowschemas", Status: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
	},
	prepareCreate: func(s *flowcontrol.FlowSchema) {
		s.Status = flowcontrol.FlowSchemaStatus{}
		s.Generation = 1
	},
	prepareUpdate: func(s, old *flowcontrol.FlowSchema, sub string) {
		if sub == "status" {
			s.Spec = old.Spec
			metav1.ResetObjectMetaForStatus(&s.ObjectMeta, &old.ObjectMeta)
			return
		}
		s.Status = old.Status
		if !apiequality.Semantic.DeepEqual(s.Spec, old.Spec) {
			s.Generation = old.Generation + 1
		}
	},
	validate: flowcontrolvalidation.ValidateFlowSchema,
	validateUpdate: func(s, old *flowcontrol.FlowSchema, sub string) field.ErrorList {
		if sub == "status" {
			return flowcontrolvalidation.ValidateFlowSchemaStatusUpdate(old, s)
		}
		return flowcontrolvalidation.ValidateFlowSchemaUpdate(old, s)
	},
})

// PriorityLevelConfigurations are flowcontrol.apiserver.k8s.io/v1 priority levels: each has a share of the server for itself.
var PriorityLevelConfigurations = declare(kind[
	flowcontrolv1.PriorityLevelConfiguration, flowcontrol.PriorityLevelConfiguration, flowcontrolv1.PriorityLevelConfigurationList,
]{
	Resource: Resource{
		GroupVersionKind: flowcontrolv1.SchemeGroupVersion.WithKind("PriorityLevelConfiguration"),
		Plural:           "prioritylevelconfigurations", Singular: "prioritylevelconfiguration",
		Prefix: "prioritylevelconfigurations", Status: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
	},
	prepareCreate: func(l *flowcontrol.PriorityLevelConfiguration) {
		l.Status = flowcontrol.PriorityLevelConfigurationStatus{}
		l.Generation = 1
	},
	prepareUpdate: func(l, old *flowcontrol.PriorityLevelConfiguration, sub string) {
		if sub == "status" {
			l.Spec = old.Spec
			metav1.ResetObjectMetaForStatus(&l.ObjectMeta, &old.ObjectMeta)
			return
		}
		l.Status = old.Status
		if !apiequality.Semantic.DeepEqual(l.Spec, old.Spec) {
			l.Generation = old.Generation + 1
		}
	},
	validate: validatePriorityLevel,
	validateUpdate: func(l, old *flowcontrol.PriorityLevelConfiguration, sub string) field.ErrorList {
		if sub == "status" {
			return flowcontrolvalidation.ValidatePriorityLevelConfigurationStatusUpdate(old, l)
		}
		return validatePriorityLevel(l)
	},
})

func validatePriorityLevel(l *flowcontrol.PriorityLevelConfiguration) field.ErrorList {
	return flowcontrolvalidation.ValidatePriorityLevelConfiguration(l, flowcontrolv1.SchemeGroupVersion, flowcontrolvalidation.PriorityLevelValidationOptions{})
}
