package admission_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/request"
)

// step is a plugin that does what a test says.
type step struct {
	name  string
	admit func(a *admission.Attributes) error
}

func (s step) Name() string                                              { return s.name }
func (s step) Admit(_ context.Context, a *admission.Attributes) error    { return s.admit(a) }
func (s step) Validate(_ context.Context, _ *admission.Attributes) error { return nil }

// TestReinvocation: a plugin that changes an object late may ask for a second round, and there is no third; what a plugin remembers is
// there in it.
func TestReinvocation(t *testing.T) {
	var seen []string
	chain := admission.Chain{
		step{"first", func(a *admission.Attributes) error {
			seen = append(seen, "first")
			if round, _ := a.Remembered("first").(int); a.Reinvoked() != (round == 1) {
				t.Errorf("round %d, reinvoked: %v", round, a.Reinvoked())
			}
			a.Remember("first", 1)
			return nil
		}},
		step{"second", func(a *admission.Attributes) error { seen = append(seen, "second"); a.Reinvoke(); return nil }},
	}
	if err := chain.Admit(t.Context(), &admission.Attributes{}); err != nil || strings.Join(seen, " ") != "first second first second" {
		t.Errorf("%v, %v", seen, err)
	}
	refused := errors.New("refused")
	chain = append(admission.Chain{step{"no", func(a *admission.Attributes) error { a.Reinvoke(); return refused }}}, chain...)
	seen = nil
	if err := chain.Admit(t.Context(), &admission.Attributes{}); !errors.Is(err, refused) || len(seen) > 0 {
		t.Errorf("%v after %v", err, seen)
	}
}

// TestAttributes: a request is in the version that its writer used, with all versions as equivalents; writes in the process, and those that a
// request for something else brings about, are in the stored one.
func TestAttributes(t *testing.T) {
	catalog := api.BuiltinCatalog()
	const hpas = "horizontalpodautoscalers"
	v1 := &request.Info{Group: "autoscaling", Version: "v1", Resource: hpas}
	for _, tc := range []struct {
		name        string
		info        *request.Info
		a           admission.Attributes
		resource    string
		kind        string
		equivalents []string
	}{
		{"over HTTP", v1, admission.Attributes{Resource: api.HorizontalPodAutoscalers, Subresource: "status"},
			"autoscaling/v1, Resource=" + hpas, "autoscaling/v1, Kind=HorizontalPodAutoscaler", []string{"v2", "v1"}},
		{"in the process", &request.Info{}, admission.Attributes{Resource: api.HorizontalPodAutoscalers},
			"autoscaling/v2, Resource=" + hpas, "autoscaling/v2, Kind=HorizontalPodAutoscaler", []string{"v2", "v1"}},
		{"because of another request", v1, admission.Attributes{Resource: api.Pods},
			"/v1, Resource=pods", "/v1, Kind=Pod", []string{"v1"}},
		{"a subresource of another kind", &request.Info{}, admission.Attributes{Resource: api.Deployments, Subresource: "scale"},
			"apps/v1, Resource=deployments", "autoscaling/v1, Kind=Scale", []string{"v1"}},
		{"a binding", &request.Info{Path: "/api/v1/namespaces/a/pods/p/binding"}, admission.Attributes{Resource: api.Pods, Subresource: "binding"},
			"/v1, Resource=pods", "/v1, Kind=Binding", []string{"v1"}},
		{"a binding, the older way", &request.Info{Path: "/api/v1/namespaces/a/bindings"}, admission.Attributes{Resource: api.Pods, Subresource: "binding"},
			"/v1, Resource=bindings", "/v1, Kind=Binding", nil},
	} {
		r := tc.a.Request(request.With(t.Context(), tc.info), catalog)
		var equivalents []string
		for _, e := range r.Equivalents {
			equivalents = append(equivalents, e.Resource.Version)
		}
		if r.Resource.String() != tc.resource || r.Kind.String() != tc.kind || !slices.Equal(equivalents, tc.equivalents) {
			t.Errorf("%s: %v %v %v", tc.name, r.Resource, r.Kind, equivalents)
		}
	}
	a := admission.Attributes{Resource: api.Namespaces, Key: api.Key{Name: "a"}}
	if r := a.Request(t.Context(), catalog); r.Namespace != "a" {
		t.Errorf("a namespace is in %q, not in itself", r.Namespace)
	}
}

// TestVersions: an object is seen in another version, and comes back from it.
func TestVersions(t *testing.T) {
	catalog := api.BuiltinCatalog()
	replicas := int32(3)
	hpa := &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: &replicas, MaxReplicas: 7}}
	a := admission.Attributes{Resource: api.HorizontalPodAutoscalers, Object: hpa}
	kind := autoscalingv1.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")
	seen, err := a.In(t.Context(), catalog, hpa, kind)
	if err != nil {
		t.Fatal(err)
	}
	seen.(*autoscalingv1.HorizontalPodAutoscaler).Spec.MaxReplicas = 9
	back, err := a.Back(t.Context(), catalog, seen, kind)
	if err != nil {
		t.Fatal(err)
	}
	if got := back.(*autoscalingv2.HorizontalPodAutoscaler).Spec; got.MaxReplicas != 9 || *got.MinReplicas != 3 {
		t.Errorf("came back as %+v", got)
	}
	if same, err := a.In(t.Context(), catalog, hpa, api.HorizontalPodAutoscalers.GroupVersionKind); err != nil || same != api.Object(hpa) {
		t.Errorf("its own version: %v, %v", same, err)
	}
	if _, err := a.In(t.Context(), catalog, hpa, schema.GroupVersionKind{Group: "autoscaling", Version: "v3", Kind: "HorizontalPodAutoscaler"}); !apierrors.IsInternalError(err) {
		t.Errorf("a version that is not served: %v", err)
	}
}

// namespaces are a Reader of namespaces with labels.
type namespaces map[string]map[string]string

func (n namespaces) Get(_ *api.Resource, key api.Key) (api.Object, bool) {
	l, ok := n[key.Name]
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: key.Name, Labels: l}}, ok
}
func (n namespaces) List(*api.Resource, string, func(api.Object) bool) {}

// TestNamespaceLabels: the labels of the object's namespace decide; those of a namespace that is being written are what they will be; without
// the namespace nothing can be decided.
func TestNamespaceLabels(t *testing.T) {
	on := map[string]string{"hook": "on"}
	c := match.Policy(&admissionregistrationv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: on}})
	reader := namespaces{"on": on, "off": nil}
	pod := func(ns string) admission.Attributes {
		return admission.Attributes{Operation: admission.Create, Resource: api.Pods, Key: api.Key{Namespace: ns, Name: "p"}, Object: &corev1.Pod{}}
	}
	will := admission.Attributes{Operation: admission.Update, Resource: api.Namespaces, Key: api.Key{Name: "off"}, Object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: on}}}
	gone := admission.Attributes{Operation: admission.Delete, Resource: api.Namespaces, Key: api.Key{Name: "off"}, Old: will.Object}
	node := admission.Attributes{Operation: admission.Create, Resource: api.Nodes, Object: &corev1.Node{}}
	for _, tc := range []struct {
		name   string
		a      admission.Attributes
		chosen bool
		wrong  bool
	}{
		{"labelled", pod("on"), true, false}, {"not labelled", pod("off"), false, false}, {"not there", pod("nowhere"), false, true},
		{"a namespace as it will be", will, true, false}, {"a namespace that goes", gone, false, false}, {"a node", node, true, false},
	} {
		r := tc.a.Request(t.Context(), api.BuiltinCatalog())
		if _, chosen, err := tc.a.Matches(c, r, reader); chosen != tc.chosen || apierrors.IsNotFound(err) != tc.wrong {
			t.Errorf("%s: %v %v", tc.name, chosen, err)
		}
	}
}
