package policy_test

import (
	"context"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/server/admission"
)

// labels is a MutatingAdmissionPolicy and its binding, of which tests replace parts.
const labelled = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: labelled}
spec:
  matchConstraints: ` + rules + `
  reinvocationPolicy: Never
  variables: [{name: who, expression: request.userInfo.username}]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'by': variables.who}}}"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: everywhere}
spec: {policyName: labelled}
`

const byConfiguration = `patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'by': variables.who}}}"}`

func byPatch(expression string) string {
	return "patchType: JSONPatch\n    jsonPatch: {expression: \"" + expression + "\"}"
}

// TestMutations: policies change what is written, and what cannot be changed is refused as kube-apiserver does.
func TestMutations(t *testing.T) {
	const refused = `policy 'labelled' with binding 'everywhere' denied request: `
	for _, tc := range []struct {
		name, with string
		labels     map[string]string
		message    string
	}{
		{"a configuration", labelled, map[string]string{"by": "ann", "was": "there"}, ""},
		{"a patch", replaced(labelled, byConfiguration, byPatch(`[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: variables.who}]`)),
			map[string]string{"a/b": "ann", "was": "there"}, ""},
		{"a patch that tests", replaced(labelled, byConfiguration,
			byPatch(`[JSONPatch{op: 'test', path: '/data/a', value: 'c'}, JSONPatch{op: 'add', path: '/metadata/labels/by', value: 'ann'}]`)), map[string]string{"was": "there"}, ""},
		{"a patch that does not fit", replaced(labelled, byConfiguration, byPatch(`[JSONPatch{op: 'remove', path: '/data/none'}]`)), nil,
			refused + "JSON Patch: error in remove for path: '/data/none': Unable to remove nonexistent key: none: missing value"},
		{"one that does not fit, ignored", replaced(labelled, byConfiguration, byPatch(`[JSONPatch{op: 'remove', path: '/data/none'}]`), "spec:\n  match", "spec:\n  failurePolicy: Ignore\n  match"),
			map[string]string{"was": "there"}, ""},
		{"an expression that fails", replaced(labelled, "variables.who}", "object.data.none}"), nil, refused + "expression '"},
		{"a field that is not there", replaced(labelled, "labels: {'by': variables.who}", "frogs: 'x'"), nil, refused + "error applying patch: "},
		{"a condition that is false", replaced(labelled, "  variables:", "  matchConditions: [{name: others, expression: request.userInfo.username != 'ann'}]\n  variables:"),
			map[string]string{"was": "there"}, ""},
		{"a condition that fails", replaced(labelled, "  variables:", "  matchConditions: [{name: her, expression: object.data.none == ''}]\n  variables:"), nil,
			refused + "expression 'object.data.none == ''' resulted in error: no such key: none"},
		{"two mutations", labelled[:strings.Index(labelled, "\n---")] + "\n  - " + byPatch(`[JSONPatch{op: 'add', path: '/metadata/labels/again', value: object.metadata.labels.by}]`) +
			labelled[strings.Index(labelled, "\n---"):], map[string]string{"by": "ann", "again": "ann", "was": "there"}, ""},
	} {
		c := start(t)
		c.add(tc.with)
		ctx, _ := ann()
		cm := configMap("m", "a", "b")
		cm.Labels = map[string]string{"was": "there"}
		out, err := c.Create(ctx, cm)
		if tc.message != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tc.message) || apierrors.ReasonForError(err) != metav1.StatusReasonInvalid {
				t.Errorf("%s: %v, want %s", tc.name, err, tc.message)
			}
			continue
		}
		if err != nil || !maps.Equal(out.GetLabels(), tc.labels) {
			t.Errorf("%s: %v, labels %v, want %v", tc.name, err, out.GetLabels(), tc.labels)
		}
		if err == nil && out.(*corev1.ConfigMap).Data["a"] != "b" {
			t.Errorf("%s: the data is lost: %v", tc.name, out)
		}
	}
}

// TestMutationsMeetDefaults: what a policy adds gets defaults like what the client sent, and lists are merged by their keys.
func TestMutationsMeetDefaults(t *testing.T) {
	c := start(t)
	c.add(replaced(labelled, `apiGroups: [""], apiVersions: [v1], resources: [configmaps]`, `apiGroups: [apps], apiVersions: [v1], resources: [deployments]`,
		"Object{metadata: Object.metadata{labels: {'by': variables.who}}}", "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{"+
			"containers: [Object.spec.template.spec.containers{name: 'side', image: 'car'}]}}}}"))
	ctx, _ := ann()
	d := deployment(1)
	if _, err := c.Create(ctx, d); err != nil {
		t.Fatal(err)
	}
	containers := d.Spec.Template.Spec.Containers
	if len(containers) != 2 || containers[0].Name != "c" || containers[1].Name != "side" || containers[1].TerminationMessagePath == "" {
		t.Errorf("containers %+v", containers)
	}
}

// later is a plugin after the policies that labels what they have left, once.
type later struct{}

func (later) Name() string { return "Later" }
func (later) Admit(_ context.Context, a *admission.Attributes) error {
	if cm, ok := a.Object.(*corev1.ConfigMap); ok && cm.Data["later"] == "" {
		cm.Data["later"] = "was here"
		a.Reinvoke()
	}
	return nil
}
func (later) Validate(context.Context, *admission.Attributes) error { return nil }

// TestReinvocation: a policy that asks for it is applied again when those after it have changed the object; others are not.
func TestReinvocation(t *testing.T) {
	counting := replaced(labelled, byConfiguration, byPatch(`[JSONPatch{op: 'add', path: '/data/count' + string(size(object.data)), value: 'x'}]`))
	for policy, want := range map[string]int{"Never": 3, "IfNeeded": 4} { // a, count1, later, and count3
		c := start(t, later{})
		c.add(strings.Replace(counting, "reinvocationPolicy: Never", "reinvocationPolicy: "+policy, 1))
		ctx, _ := ann()
		out, err := c.Create(ctx, configMap("m", "a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		if data := out.(*corev1.ConfigMap).Data; len(data) != want {
			t.Errorf("%s: %v, want %d entries", policy, data, want)
		}
	}
}

// TestOneAfterTheOther: a policy sees what those before it, by name, have made.
func TestOneAfterTheOther(t *testing.T) {
	c := start(t)
	c.add(labelled)
	second := replaced(labelled, "name: labelled}", "name: zoo}", "name: everywhere", "name: zoo", "policyName: labelled", "policyName: zoo", "{'by': variables.who}", "{'seen': object.metadata.labels.by}")
	c.add(second)
	ctx, _ := ann()
	out, err := c.Create(ctx, configMap("m"))
	if err != nil || out.GetLabels()["seen"] != "ann" {
		t.Errorf("%v, labels %v", err, out.GetLabels())
	}
}
