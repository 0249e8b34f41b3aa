package api

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// fish is an APIService with a value in each field.
func fish() *apiregistrationv1.APIService {
	port := int32(7443)
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1.fish.example.com", ResourceVersion: "7"},
		Spec: apiregistrationv1.APIServiceSpec{
			Service: &apiregistrationv1.ServiceReference{Namespace: "sea", Name: "fish", Port: &port},
			Group:   "fish.example.com", Version: "v1", CABundle: []byte("ca"), GroupPriorityMinimum: 1000, VersionPriority: 15,
		},
		Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{
			Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, Reason: "Passed", Message: "all checks passed",
		}}},
	}
}

// goldenAPIService is fish as kube-aggregator writes it: no example comes with its library.
func goldenAPIService(t testing.TB, ext string) []byte {
	t.Helper()
	obj := fish()
	obj.GetObjectKind().SetGroupVersionKind(APIServices.GroupVersionKind)
	var buf bytes.Buffer
	var err error
	if ext == "pb" {
		err = protobuf.NewSerializer(Scheme, Scheme).Encode(obj, &buf)
	} else {
		err = json.NewEncoder(&buf).Encode(obj)
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestLocalAPIServicesAreAvailableAtOnce(t *testing.T) {
	s := fish()
	s.Spec.Service, s.Spec.CABundle = nil, nil
	APIServices.Default(s)
	APIServices.PrepareForCreate(s)
	if c := s.Status.Conditions; len(c) != 1 || c[0].Reason != "Local" || c[0].Status != apiregistrationv1.ConditionTrue || c[0].LastTransitionTime.IsZero() {
		t.Errorf("a local one: %+v", c)
	}
	s = fish()
	s.Spec.Service.Port = nil
	APIServices.Default(s)
	APIServices.PrepareForCreate(s)
	if len(s.Status.Conditions) != 0 || *s.Spec.Service.Port != 443 {
		t.Errorf("one with a service: %+v", s)
	}
	if errs := APIServices.Validate(s); len(errs) > 0 {
		t.Error(errs)
	}
}

func TestAPIServicesThatAreRefused(t *testing.T) {
	for want, break_ := range map[string]func(*apiregistrationv1.APIService){
		"metadata.name":              func(s *apiregistrationv1.APIService) { s.Name = "v2.fish.example.com" },
		"spec.group":                 func(s *apiregistrationv1.APIService) { s.Spec.Group, s.Name = "", "v1."; s.Spec.Version = "v2" },
		"spec.groupPriorityMinimum":  func(s *apiregistrationv1.APIService) { s.Spec.GroupPriorityMinimum = 20001 },
		"spec.versionPriority":       func(s *apiregistrationv1.APIService) { s.Spec.VersionPriority = 0 },
		"spec.service.namespace":     func(s *apiregistrationv1.APIService) { s.Spec.Service.Namespace = "" },
		"spec.insecureSkipTLSVerify": func(s *apiregistrationv1.APIService) { s.Spec.InsecureSkipTLSVerify = true },
		"spec.caBundle":              func(s *apiregistrationv1.APIService) { s.Spec.Service = nil },
	} {
		s := fish()
		break_(s)
		if errs := APIServices.Validate(s); len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), want) {
			t.Errorf("%s: %v", want, errs)
		}
		if errs := APIServices.ValidateUpdate(s, fish(), ""); len(errs) == 0 {
			t.Errorf("%s: taken as an update", want)
		}
	}
	s := fish()
	s.Status.Conditions[0].Status = "Perhaps"
	if errs := APIServices.ValidateUpdate(s, fish(), "status"); len(errs) == 0 || !strings.Contains(errs[0].Field, "status.conditions[0].status") {
		t.Errorf("a condition that is neither: %v", errs)
	}
}

func TestTheStatusOfAnAPIServiceIsAll(t *testing.T) {
	old, s := fish(), fish()
	s.Labels, s.Spec.VersionPriority, s.Status.Conditions = map[string]string{"a": "b"}, 16, nil
	written := s.DeepCopy()
	APIServices.PrepareForUpdate(s, old, "status")
	if len(s.Labels) > 0 || s.Spec.VersionPriority != 15 || s.Status.Conditions != nil {
		t.Errorf("through status: %+v", s)
	}
	APIServices.PrepareForUpdate(written, old, "")
	if written.Labels["a"] != "b" || written.Spec.VersionPriority != 16 || len(written.Status.Conditions) != 1 {
		t.Errorf("the object itself: %+v", written)
	}
}
