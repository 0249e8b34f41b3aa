// Package registration holds what happens to APIServices as they are written and shown.
//
// What flows through it: api.APIServices calls it with APIServices of upstream's types, and those who read them ask it about their
// condition. What must stay true: a local APIService is available from the moment it is created
// (TestLocalAPIServicesAreAvailableAtOnce, internal/api).
package registration

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	registrationapply "k8s.io/kube-aggregator/pkg/client/applyconfiguration"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// AddToScheme adds the types of apiregistration.k8s.io to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	if err := apiregistration.AddToScheme(s); err != nil {
		return err
	}
	return apiregistrationv1.AddToScheme(s)
}

// Local is the condition of an APIService that this server answers for itself.
func Local(now metav1.Time) apiregistrationv1.APIServiceCondition {
	return apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: now,
		Reason: "Local", Message: "Local APIServices are always available",
	}
}

// Available returns the condition Available of an APIService, or nil.
func Available(s *apiregistrationv1.APIService) *apiregistrationv1.APIServiceCondition {
	for i := range s.Status.Conditions {
		if s.Status.Conditions[i].Type == apiregistrationv1.Available {
			return &s.Status.Conditions[i]
		}
	}
	return nil
}

// types are how server-side apply reads APIServices, and other objects as another converter does.
type types struct {
	managedfields.TypeConverter
	registrations func() managedfields.TypeConverter
}

// WithTypes returns a converter that knows APIServices, too. Their schema is parsed at the first use.
func WithTypes(others managedfields.TypeConverter, s *runtime.Scheme) managedfields.TypeConverter {
	return types{others, sync.OnceValue(func() managedfields.TypeConverter { return registrationapply.NewTypeConverter(s) })}
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t types) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if obj.GetObjectKind().GroupVersionKind().Group == apiregistrationv1.GroupName {
		return t.registrations().ObjectToTyped(obj, opts...)
	}
	return t.TypeConverter.ObjectToTyped(obj, opts...)
}
