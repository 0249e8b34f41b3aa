package registration

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func TestWhatIsShownOfAPIServices(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	made := metav1.ObjectMeta{Name: "v1.example.com", CreationTimestamp: metav1.NewTime(now.Add(-3 * time.Hour))}
	ref := apiregistrationv1.APIServiceSpec{Service: &apiregistrationv1.ServiceReference{Namespace: "shop", Name: "api"}}
	condition := func(status apiregistrationv1.ConditionStatus, reason string) apiregistrationv1.APIServiceStatus {
		return apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{Type: "Other"}, {Type: apiregistrationv1.Available, Status: status, Reason: reason}}}
	}
	for _, tc := range []struct {
		service apiregistrationv1.APIService
		want    []any
	}{
		{apiregistrationv1.APIService{ObjectMeta: made, Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{Local(metav1.NewTime(now))}}},
			[]any{"v1.example.com", "Local", "True", "3h"}},
		{apiregistrationv1.APIService{ObjectMeta: made, Spec: ref, Status: condition("False", "ServiceNotFound")}, []any{"v1.example.com", "shop/api", "False (ServiceNotFound)", "3h"}},
		{apiregistrationv1.APIService{ObjectMeta: made, Spec: ref, Status: condition("True", "Passed")}, []any{"v1.example.com", "shop/api", "True", "3h"}},
		{apiregistrationv1.APIService{Spec: ref}, []any{"", "shop/api", "Unknown", "<unknown>"}},
	} {
		if got := Cells(&tc.service, now); !reflect.DeepEqual(got, tc.want) || len(got) != len(Columns()) {
			t.Errorf("%v, want %v", got, tc.want)
		}
	}
}
