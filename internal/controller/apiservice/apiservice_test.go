package apiservice

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-io/knarr/internal/api/registration"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

var served = []schema.GroupVersion{{Version: "v1"}, {Group: "apps", Version: "v1"}, {Group: "metrics.k8s.io", Version: "v1beta1"}, {Group: "apiregistration.k8s.io", Version: "v1"}}

func names(c *ct.Cluster) string {
	var out []string
	for _, s := range ct.All[*apiregistrationv1.APIService](c, "") {
		out = append(out, s.Name+s.Labels[managed])
	}
	return strings.Join(out, " ")
}

func TestBuiltInGroupVersionsAreRegistered(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		stop := c.Start(NewRegistration(c.Client, served))
		c.Settle()
		if got := names(c); got != "v1.onstart v1.appsonstart v1beta1.metrics.k8s.io" {
			t.Fatalf("registered: %s", got)
		}
		apps := ct.Get[*apiregistrationv1.APIService](c, "", "v1.apps")
		if apps.Spec.GroupPriorityMinimum != 17800 || apps.Spec.VersionPriority != 15 || apps.Status.Conditions[0].Reason != "Local" {
			t.Errorf("%+v", apps)
		}
		ct.Change(c, "", "v1.apps", "", func(s *apiregistrationv1.APIService) { s.Spec.VersionPriority = 3 })
		ct.Delete[*apiregistrationv1.APIService](c, "", "v1.", metav1.DeleteOptions{})
		c.Settle()
		if got := ct.Get[*apiregistrationv1.APIService](c, "", "v1.apps"); got.Spec.VersionPriority != 3 || names(c) != "v1.appsonstart v1beta1.metrics.k8s.io" {
			t.Errorf("what was changed since the start was touched: %s", names(c))
		}
		stop()
		c.Start(NewRegistration(c.Client, served))
		c.Settle()
		if got := ct.Get[*apiregistrationv1.APIService](c, "", "v1.apps"); got.Spec.VersionPriority != 15 || names(c) != "v1.onstart v1.appsonstart v1beta1.metrics.k8s.io" {
			t.Errorf("after the next start: %d, %s", got.Spec.VersionPriority, names(c))
		}
	})
}

func TestDefinitionsAreRegistered(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		version := func(name string, served bool) apiextensionsv1.CustomResourceDefinitionVersion {
			return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Served: served, Storage: name == "v1",
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}}}
		}
		ct.Make(c, &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "boats.harbour.example"}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "harbour.example", Scope: apiextensionsv1.NamespaceScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "boats", Kind: "Boat"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{version("v1", true), version("v2", true), version("v3", false)},
		}})
		c.Start(NewRegistration(c.Client, nil))
		c.Settle()
		if got := names(c); got != "v1.harbour.exampletrue v2.harbour.exampletrue" {
			t.Fatalf("registered: %s", got)
		}
		ct.Delete[*apiregistrationv1.APIService](c, "", "v1.harbour.example", metav1.DeleteOptions{})
		ct.Change(c, "", "v2.harbour.example", "", func(s *apiregistrationv1.APIService) { s.Spec.GroupPriorityMinimum = 7 })
		c.Settle()
		if got := ct.Get[*apiregistrationv1.APIService](c, "", "v2.harbour.example"); got.Spec.GroupPriorityMinimum != 1000 || names(c) != "v1.harbour.exampletrue v2.harbour.exampletrue" {
			t.Errorf("not kept: %d, %s", got.Spec.GroupPriorityMinimum, names(c))
		}
		ct.Change(c, "", "boats.harbour.example", "", func(d *apiextensionsv1.CustomResourceDefinition) { d.Spec.Versions = d.Spec.Versions[:1] })
		c.Settle()
		if got := names(c); got != "v1.harbour.exampletrue" {
			t.Errorf("a version that is gone: %s", got)
		}
	})
}

func TestSomebodyElsesAPIServicesAreLeftAlone(t *testing.T) {
	theirs := local(schema.GroupVersion{Group: "apps", Version: "v1"}, registration.Priority{Group: 17800, Version: 15}, "")
	desired := builtin(served)["v1.apps"]
	for name, tc := range map[string]struct {
		desired, present *apiregistrationv1.APIService
		done, atStart    bool
		want             action
	}{
		"nothing at all":                          {nil, nil, false, false, leave},
		"not there yet":                           {desired, nil, false, false, create},
		"deleted since the start":                 {desired, nil, true, true, leave},
		"somebody else's":                         {desired, changed(theirs, ""), false, true, leave},
		"somebody else's, of nothing":             {nil, theirs, false, true, leave},
		"changed before the start":                {desired, changed(theirs, onStart), false, true, update},
		"changed since":                           {desired, changed(theirs, onStart), true, true, leave},
		"somebody's, who said that it is managed": {desired, changed(theirs, onStart), false, false, leave},
		"of a version that is no longer built in": {nil, changed(theirs, onStart), false, true, remove},
		"as it should be":                         {desired, desired, false, true, leave},
		"a definition's that has gone":            {nil, changed(theirs, always), true, false, remove},
		"metrics of another server":               {builtin(served)["v1beta1.metrics.k8s.io"], theirs, false, true, leave},
	} {
		if got := plan(tc.desired, tc.present, tc.done, tc.atStart); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func changed(s *apiregistrationv1.APIService, label string) *apiregistrationv1.APIService {
	s = s.DeepCopy()
	s.Spec.VersionPriority++
	s.Labels = map[string]string{managed: label}
	return s
}

func TestAvailability(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		var asked atomic.Int32
		var wrong atomic.Pointer[error]
		c.Start(NewAvailability(c.Client, func(context.Context, *apiregistrationv1.APIService) error {
			asked.Add(1)
			if err := wrong.Load(); err != nil {
				return *err
			}
			return nil
		}))
		port := int32(7443)
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "sea"}})
		ct.Make(c, &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.fish.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
			Group: "fish.example.com", Version: "v1", GroupPriorityMinimum: 2000, VersionPriority: 10, InsecureSkipTLSVerify: true,
			Service: &apiregistrationv1.ServiceReference{Namespace: "sea", Name: "fish", Port: &port}}})
		expect := func(status, reason, message string) {
			t.Helper()
			c.Settle()
			got := ct.Get[*apiregistrationv1.APIService](c, "", "v1.fish.example.com").Status.Conditions
			if len(got) != 1 || string(got[0].Status) != status || got[0].Reason != reason || got[0].Message != message {
				t.Errorf("%+v, want %s %s %q", got, status, reason, message)
			}
		}
		expect("False", "ServiceNotFound", `service/fish in "sea" is not present`)
		ct.Make(c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "sea", Name: "fish"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "https", Port: 443}}}})
		expect("False", "ServicePortError", `service/fish in "sea" is not listening on port 7443`)
		ct.Change(c, "sea", "fish", "", func(s *corev1.Service) { s.Spec.Ports[0].Port = port })
		expect("False", "EndpointsNotFound", `cannot find endpointslices for service/fish in "sea"`)
		no, name := false, "https"
		ct.Make(c, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "sea", Name: "fish-1", Labels: map[string]string{discoveryv1.LabelServiceName: "fish"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}}}})
		expect("False", "MissingEndpoints", `endpointslices for service/fish in "sea" have no addresses with port name "https"`)
		if asked.Load() != 0 {
			t.Error("a server without endpoints was asked")
		}
		err := errors.New("failing or missing response")
		wrong.Store(&err)
		ct.Change(c, "sea", "fish-1", "", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = nil })
		expect("False", "FailedDiscoveryCheck", err.Error())
		wrong.Store(nil)
		c.Pass(2 * time.Second)
		expect("True", "Passed", "all checks passed")
		wrong.Store(&err)
		c.Pass(31 * time.Second) // nothing has told that the server is gone
		expect("False", "FailedDiscoveryCheck", err.Error())
		before := asked.Load()
		c.Pass(10 * time.Minute)
		if n := asked.Load() - before; n < 20 || n > 60 {
			t.Errorf("a server that is away was asked %d times in ten minutes", n)
		}
		ct.Change(c, "", "v1.fish.example.com", "", func(s *apiregistrationv1.APIService) { s.Spec.Service, s.Spec.InsecureSkipTLSVerify = nil, false })
		expect("True", "Local", "Local APIServices are always available")
	})
}
