package api

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/validation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/knarr-io/knarr/internal/api/registration"
)

// APIServices are apiregistration.k8s.io/v1 registrations of group-versions: those that this server answers for, and those that a Service
// of the cluster does, to which server/aggregate passes requests on. internal/controller/apiservice keeps the former and the status of
// the latter.
var APIServices = declare(kind[apiregistrationv1.APIService, apiregistration.APIService, apiregistrationv1.APIServiceList]{
	Resource: Resource{
		GroupVersionKind: apiregistrationv1.SchemeGroupVersion.WithKind("APIService"),
		Plural:           "apiservices", Singular: "apiservice", Categories: []string{"api-extensions"},
		Prefix: "apiregistration.k8s.io/apiservices", Status: true, Conditional: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("spec", "metadata")},
		Dynamic: Dynamic{Columns: registration.Columns(), Cells: func(obj Object) []any {
			return registration.Cells(obj.(*apiregistrationv1.APIService), time.Now())
		}},
	},
	prepareCreate: func(s *apiregistration.APIService) {
		s.Status = apiregistration.APIServiceStatus{}
		if s.Spec.Service == nil {
			c := registration.Local(metav1.Now().Rfc3339Copy())
			s.Status.Conditions = []apiregistration.APIServiceCondition{{
				Type: apiregistration.APIServiceConditionType(c.Type), Status: apiregistration.ConditionStatus(c.Status),
				LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
			}}
		}
	},
	prepareUpdate: func(s, old *apiregistration.APIService, sub string) {
		if sub == "status" {
			s.Spec = old.Spec
			s.Labels, s.Annotations, s.Finalizers, s.OwnerReferences = old.Labels, old.Annotations, old.Finalizers, old.OwnerReferences
			return
		}
		s.Status = old.Status
	},
	validate: func(s *apiregistration.APIService) field.ErrorList {
		return validation.ValidateAPIService(context.Background(), s)
	},
	validateUpdate: func(s, old *apiregistration.APIService, sub string) field.ErrorList {
		if sub == "status" {
			return validation.ValidateAPIServiceStatusUpdate(context.Background(), s, old)
		}
		return validation.ValidateAPIServiceUpdate(context.Background(), s, old)
	},
})
