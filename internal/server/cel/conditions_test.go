package cel

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// mayRead lets everybody read ConfigMaps.
type mayRead struct{}

func (mayRead) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.Verb == "get" && a.Resource == "configmaps" && a.User.GetName() == "ann" {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "no", nil
}

// written is the creation of a ConfigMap by ann.
func written() *View {
	cm := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prices", Labels: map[string]string{"tier": "front"}},
		Data:       map[string]string{"apple": "3"},
	}
	a := &admission.Attributes{
		Operation: admission.Create, Resource: api.ConfigMaps, Key: api.KeyOf(cm), Object: cm, Options: &metav1.CreateOptions{FieldManager: "kubectl"},
		User: &user.DefaultInfo{Name: "ann", Groups: []string{"cooks"}},
	}
	return NewView(a, match.Target{Resource: api.ConfigMaps.GroupVersionResource(), Kind: api.ConfigMaps.GroupVersionKind},
		Version{Kind: api.ConfigMaps.GroupVersionKind, Resource: api.ConfigMaps.GroupVersionResource(), Object: cm}, mayRead{})
}

func conditions(expressions ...string) []admissionregistrationv1.MatchCondition {
	var list []admissionregistrationv1.MatchCondition
	for i, e := range expressions {
		list = append(list, admissionregistrationv1.MatchCondition{Name: fmt.Sprintf("c%d", i), Expression: e})
	}
	return list
}

func TestConditionsMatch(t *testing.T) {
	for _, tc := range []struct {
		conditions []string
		matched    bool
		excluded   string
		err        string
	}{
		{nil, true, "", ""},
		{[]string{"object.metadata.labels.tier == 'front'", "request.userInfo.username == 'ann'", "oldObject == null"}, true, "", ""},
		{[]string{"request.kind.kind == 'ConfigMap'", "request.resource.resource == 'configmaps'", "request.namespace == 'shop'", "request.name == 'prices'",
			"request.operation == 'CREATE'", "'cooks' in request.userInfo.groups", "request.dryRun == false", "request.options.fieldManager == 'kubectl'",
			"request.requestKind.version == 'v1'", "object.data.apple == '3'", "object.kind == 'ConfigMap'"}, true, "", ""},
		{[]string{"true", "object.data.apple == '4'"}, false, "c1", ""},
		{[]string{"object.data.pear == '4'", "false"}, false, "c1", ""}, // false decides, whatever else went wrong
		{[]string{"true", "object.data.pear == '4'"}, false, "", "expression 'object.data.pear == '4'' resulted in error: no such key: pear"},
		{[]string{"object.", "true"}, false, "", "compilation error: compilation failed: ERROR"},
		{[]string{"authorizer.group('').resource('configmaps').namespace('shop').check('get').allowed()"}, true, "", ""},
		{[]string{"authorizer.requestResource.check('get').allowed()"}, true, "", ""},
		{[]string{"authorizer.group('').resource('secrets').check('get').allowed()"}, false, "c0", ""},
	} {
		var p Programs
		matched, excluded, err := p.Conditions(conditions(tc.conditions...)).Match(t.Context(), written())
		if matched != tc.matched || excluded != tc.excluded || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: %v %q %v, want %v %q %q", tc.conditions, matched, excluded, err, tc.matched, tc.excluded, tc.err)
		}
	}
}

func TestBudgets(t *testing.T) {
	v := written()
	v.Changed(&corev1.ConfigMap{Data: map[string]string{"text": strings.Repeat("x", 100_000)}})
	// Each search costs 10 000 (CostEstimator's rule for contains); one expression may cost a million, all of a webhook's two and a half.
	searches := func(n int) string {
		return fmt.Sprintf("[%s0].all(a, !object.data.text.contains('y'))", strings.Repeat("0,", n-1))
	}
	var p Programs
	_, _, err := p.Conditions(conditions(searches(110))).Match(t.Context(), v)
	if err == nil || !strings.Contains(err.Error(), "operation cancelled: actual cost limit exceeded") {
		t.Errorf("an expression that costs more than a million: %v", err)
	}
	if matched, _, err := p.Conditions(conditions(searches(90), searches(90))).Match(t.Context(), v); !matched || err != nil {
		t.Errorf("conditions that cost less than two and a half millions together: %v, %v", matched, err)
	}
	_, _, err = p.Conditions(conditions(searches(90), searches(90), searches(90))).Match(t.Context(), v)
	if err == nil || !strings.Contains(err.Error(), "running out of cost budget") {
		t.Errorf("conditions that cost more than two and a half millions together: %v", err)
	}
}

func TestProgramsAreShared(t *testing.T) {
	var p Programs
	a, b := p.Conditions(conditions("true")), p.Conditions(conditions("true"))
	if a != b {
		t.Error("conditions that say the same were made twice")
	}
	if p.Conditions(conditions("false")) == a {
		t.Error("conditions that say something else are the same")
	}
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
	runtime.GC()
	p.Conditions(conditions("1 == 1"))
	if n := len(p.conditions.known); n > 2 {
		t.Errorf("%d conditions are held, most of which nobody has any longer", n)
	}
}
