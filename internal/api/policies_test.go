package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

const goodPolicy = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: p}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], resources: [deployments], operations: [CREATE]}]}
  matchConditions: [{name: all, expression: "true"}]
  variables: [{name: replicas, expression: object.spec.replicas}]
  validations: [{expression: "variables.replicas < int(params.data.most)", messageExpression: "'at most ' + params.data.most"}]
  auditAnnotations: [{key: k, valueExpression: "'v'"}]
`

const goodMutation = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: p}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], resources: [deployments], operations: [CREATE]}]}
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{spec: Object.spec{replicas: 3}}"}
`

const goodBinding = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: b}
spec: {policyName: p, validationActions: [Deny], paramRef: {name: x, parameterNotFoundAction: Allow}}
`

// TestPolicies: policies and bindings are refused with upstream's words, their expressions where they do not compile or cost too much.
func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		name, manifest, from, to string
		want                     []string
	}{
		{"a policy", goodPolicy, "", "", nil},
		{"a mutation", goodMutation, "", "", nil},
		{"a binding", goodBinding, "", "", nil},
		{"an expression that does not compile", goodPolicy, "variables.replicas <", "variables.replicas <<", []string{
			`spec.validations[0].expression: Invalid value: "variables.replicas << int(params.data.most)": compilation failed: ERROR: <input>:1:21: Syntax error`}},
		{"an expression of another type", goodPolicy, `"variables.replicas < int(params.data.most)"`, "\"'x'\"", []string{
			`spec.validations[0].expression: Invalid value: "'x'": must evaluate to bool but got string`}},
		{"a condition with variables", goodPolicy, `expression: "true"`, "expression: variables.replicas == 1", []string{
			`spec.matchConditions[0].expression: Invalid value: "variables.replicas == 1": compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables'`}},
		{"no parameters", goodPolicy, "  paramKind: {apiVersion: v1, kind: ConfigMap}\n", "", []string{
			`spec.validations[0].expression: Invalid value: "variables.replicas < int(params.data.most)": compilation failed: ERROR: <input>:1:26: undeclared reference to 'params'`,
			`spec.validations[0].messageExpression: Invalid value: "'at most ' + params.data.most": compilation failed: ERROR: <input>:1:14: undeclared reference to 'params'`}},
		{"no rules", goodPolicy, "resourceRules: [{apiGroups: [apps], apiVersions: [v1], resources: [deployments], operations: [CREATE]}]", "", []string{
			"spec.matchConstraints.resourceRules: Required value"}},
		{"a kept name", goodPolicy, "{name: p}", "{name: p.static.k8s.io}", []string{
			`metadata.name: Invalid value: "p.static.k8s.io": names ending with ".static.k8s.io" are reserved`}},
		{"a patch of another type", goodMutation, "Object{spec: Object.spec{replicas: 3}}", "3", []string{
			`spec.mutations[0].applyConfiguration.expression: Invalid value: "3": must evaluate to Object but got int`}},
		{"a mutation of what is deleted", goodMutation, "operations: [CREATE]", "operations: [DELETE]", []string{
			`spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE"`}},
		{"no reinvocation policy", goodMutation, "  reinvocationPolicy: Never\n", "", []string{"spec.reinvocationPolicy: Required value"}},
		{"no action", goodBinding, "[Deny]", "[]", []string{"spec.validationActions: Required value"}},
		{"actions that do not go together", goodBinding, "[Deny]", "[Deny, Warn]", []string{`spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both Deny and Warn`}},
		{"no word on missing parameters", goodBinding, ", parameterNotFoundAction: Allow", "", []string{"spec.paramRef.parameterNotFoundAction: Required value"}},
		{"a name and a selector", goodBinding, "name: x,", "name: x, selector: {},", []string{
			"spec.paramRef.name: Forbidden: name and selector are mutually exclusive", "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive"}},
	} {
		obj := read(t, strings.Replace(c.manifest, c.from, c.to, 1))
		res := resourceOf(t, obj)
		res.PrepareForCreate(obj)
		got := uniq(texts(res.Validate(obj)))
		if len(got) != len(c.want) {
			t.Errorf("%s: %s", c.name, cmp.Diff(c.want, got))
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], c.want[i]) {
				t.Errorf("%s: %q, want %q", c.name, got[i], c.want[i])
			}
		}
	}
}

// TestPolicyStatusAndSpec: each is written on its own, and only the spec counts as a generation.
func TestPolicyStatusAndSpec(t *testing.T) {
	old := read(t, goodPolicy)
	res := resourceOf(t, old)
	res.PrepareForCreate(old)
	if old.GetGeneration() != 1 {
		t.Errorf("generation %d", old.GetGeneration())
	}
	changed := read(t, strings.Replace(goodPolicy, "'v'", "'w'", 1))
	changed.SetGeneration(1)
	res.PrepareForUpdate(changed, old, "")
	if changed.GetGeneration() != 2 {
		t.Errorf("generation %d after a change", changed.GetGeneration())
	}
	status := read(t, strings.Replace(goodPolicy, "'v'", "'w'", 1)+"status: {observedGeneration: 1}\n")
	status.SetGeneration(1)
	res.PrepareForUpdate(status, old, "status")
	spec := func(o Object) any { return o.(*admissionregistrationv1.ValidatingAdmissionPolicy).Spec }
	if diff := cmp.Diff(spec(old), spec(status)); diff != "" || status.GetGeneration() != 1 {
		t.Errorf("a write of the status changed the spec: %s", diff)
	}
}
