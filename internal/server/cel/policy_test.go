package cel

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"

	"github.com/knarr-io/knarr/internal/api"
)

// TestVerdicts: each validation gets a decision, each annotation a value; variables are evaluated where they are named.
func TestVerdicts(t *testing.T) {
	ignore := admissionregistrationv1.Ignore
	spec := admissionregistrationv1.ValidatingAdmissionPolicySpec{
		ParamKind: &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
		Variables: []admissionregistrationv1.Variable{
			{Name: "fruit", Expression: "object.data.map(k, k)"}, {Name: "first", Expression: "variables.fruit[0]"}, {Name: "broken", Expression: "object.data.none"},
		},
		Validations: []admissionregistrationv1.Validation{
			{Expression: "variables.first == 'apple'"},
			{Expression: "variables.first == params.data.want", MessageExpression: "variables.first + ' is no ' + params.data.want + ' in ' + namespaceObject.metadata.name"},
			{Expression: "variables.broken == ''"},
			{Expression: "variables.first == ''", Message: " a message ", MessageExpression: "'two\\nlines'"},
		},
		AuditAnnotations: []admissionregistrationv1.AuditAnnotation{
			{Key: "fruit", ValueExpression: "' ' + variables.first"}, {Key: "none", ValueExpression: "null"}, {Key: "broken", ValueExpression: "string(variables.broken)"},
		},
	}
	in := Inputs{
		Params:    &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: map[string]string{"want": "pear"}},
		Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
	}
	for _, failure := range []*admissionregistrationv1.FailurePolicyType{nil, &ignore} {
		spec.FailurePolicy = failure
		var p Programs
		v := p.Validating(&spec).Evaluate(t.Context(), written(), in)
		wants := []struct {
			action  validating.PolicyDecisionAction
			message string
		}{
			{validating.ActionAdmit, ""}, {validating.ActionDeny, "apple is no pear in shop"},
			{validating.ActionDeny, "composited variable \"broken\" fails to evaluate: no such key: none"}, {validating.ActionDeny, "a message"},
		}
		if failure != nil {
			wants[2].action = validating.ActionAdmit
		}
		for i, want := range wants {
			if d := v.Decisions[i]; d.Action != want.action || !strings.Contains(d.Message, want.message) {
				t.Errorf("validation %d: %s %q, want %s %q", i, d.Action, d.Message, want.action, want.message)
			}
		}
		a := v.AuditAnnotations
		if a[0].Value != "apple" || a[1].Action != validating.AuditAnnotationActionExclude || (a[2].Action == validating.AuditAnnotationActionError) != (failure == nil) {
			t.Errorf("annotations %+v", a)
		}
	}
}

// TestPatches: a patch leaves the object of the view alone, and what is put in its place is what the next one sees.
func TestPatches(t *testing.T) {
	spec := admissionregistrationv1.MutatingAdmissionPolicySpec{
		Variables: []admissionregistrationv1.Variable{{Name: "who", Expression: "request.userInfo.username"}},
		Mutations: []admissionregistrationv1.Mutation{
			{PatchType: admissionregistrationv1.PatchTypeApplyConfiguration, ApplyConfiguration: &admissionregistrationv1.ApplyConfiguration{
				Expression: "Object{metadata: Object.metadata{annotations: {'by': variables.who}}}"}},
			{PatchType: admissionregistrationv1.PatchTypeJSONPatch, JSONPatch: &admissionregistrationv1.JSONPatch{
				Expression: "[JSONPatch{op: 'add', path: '/data/by', value: object.metadata.annotations.by}]"}},
		},
	}
	var p Programs
	m := p.Mutating(&spec)
	if m != p.Mutating(&spec) || m.Mutations() != 2 {
		t.Fatalf("%d mutations, or made twice", m.Mutations())
	}
	v := written()
	if ok, err := m.Match(t.Context(), v, Inputs{}); !ok || err != nil {
		t.Errorf("a policy without conditions: %v %v", ok, err)
	}
	before := v.Object().DeepCopyObject()
	first, err := m.Patch(t.Context(), 0, v, Inputs{}, api.TypeConverter())
	if err != nil {
		t.Fatal(err)
	}
	if got := first.(*unstructured.Unstructured).GetAnnotations()["by"]; got != "ann" {
		t.Errorf("annotated by %q", got)
	}
	if cm := v.Object().(*corev1.ConfigMap); len(cm.Annotations) != 0 || len(before.(*corev1.ConfigMap).Data) != len(cm.Data) {
		t.Errorf("the object was changed: %v", cm)
	}
	if _, err := m.Patch(t.Context(), 1, v, Inputs{}, api.TypeConverter()); err == nil || !strings.Contains(err.Error(), "no such key") {
		t.Errorf("the second patch without the first: %v", err)
	}
	cm := v.Object().DeepCopyObject().(*corev1.ConfigMap)
	cm.Annotations = map[string]string{"by": "ann"}
	v.Changed(cm)
	second, err := m.Patch(t.Context(), 1, v, Inputs{}, api.TypeConverter())
	if err != nil || second.(*corev1.ConfigMap).Data["by"] != "ann" {
		t.Errorf("%v, %v", second, err)
	}
}
