package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// widgets are a custom resource.
func (c *cluster) widgets() *api.Resource {
	c.t.Helper()
	w := api.Custom(api.Resource{
		GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"},
		Plural:           "widgets", Singular: "widget", Namespaced: true, Prefix: "example.com/widgets",
	})
	if err := c.registry.Serve(c.t.Context(), w); err != nil {
		c.t.Fatal(err)
	}
	return w
}

func widget(name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": name, "namespace": "default"}, "spec": spec,
	}}
}

// TestCustomResources: custom resources are judged and changed like built-in ones, and are parameters as soon as they are served.
func TestCustomResources(t *testing.T) {
	c := start(t)
	c.add(replaced(short, "spec:\n  match", "spec:\n  paramKind: {apiVersion: example.com/v1, kind: Widget}\n  match", rules,
		`{resourceRules: [{apiGroups: ["*"], apiVersions: ["*"], resources: [configmaps, widgets], operations: [CREATE]}]}`,
		`size(object.data)`, `"has(object.data) ? size(object.data) : object.spec.size"`, "variables.size < 2", "variables.size < params.spec.size",
		"policyName: short", "policyName: short, paramRef: {name: bound, namespace: default, parameterNotFoundAction: Allow}"))
	ctx, _ := ann()
	if _, err := c.Create(ctx, configMap("early")); err == nil || !strings.Contains(err.Error(), "failed to find resource referenced by paramKind: 'example.com/v1, Kind=Widget'") {
		t.Errorf("parameters of a kind that is not there: %v", err)
	}
	c.widgets()
	if _, err := c.Create(ctx, configMap("still-early", "a", "b", "c", "d")); err != nil {
		t.Errorf("parameters that are not there, and may be missing: %v", err)
	}
	if _, err := c.Create(ctx, widget("bound", map[string]any{"size": int64(2)})); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(ctx, configMap("long", "a", "b", "c", "d")); !apierrors.IsInvalid(err) {
		t.Errorf("a custom resource as parameter: %v", err)
	}
	if _, err := c.Create(ctx, widget("wide", map[string]any{"size": int64(3)})); !apierrors.IsInvalid(err) {
		t.Errorf("a custom resource that is too wide: %v", err)
	}
	c.add(replaced(labelled, rules, `{resourceRules: [{apiGroups: [example.com], apiVersions: [v1], resources: [widgets], operations: ["*"]}]}`,
		byConfiguration, byPatch(`[JSONPatch{op: 'replace', path: '/spec/size', value: 1}]`)))
	out, err := c.Create(ctx, widget("wide", map[string]any{"size": int64(3)}))
	if err != nil {
		t.Fatal(err)
	}
	if size, _, _ := unstructured.NestedInt64(out.(*unstructured.Unstructured).Object, "spec", "size"); size != 1 {
		t.Errorf("the policy changed nothing: %v", out)
	}
}

// TestMetrics: the figures have Kubernetes' names and labels.
func TestMetrics(t *testing.T) {
	c := start(t)
	c.add(short)
	c.add(labelled)
	ctx, _ := ann()
	if _, err := c.Create(ctx, configMap("long", "a", "b", "c", "d")); !apierrors.IsInvalid(err) {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c.metrics)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.Metric {
			line := f.GetName()
			for _, l := range m.Label {
				line += fmt.Sprintf(" %s=%s", l.GetName(), l.GetValue())
			}
			got = append(got, line)
		}
	}
	want := []string{
		"apiserver_mutating_admission_policy_check_duration_seconds error_type=no_error policy=labelled policy_binding=everywhere",
		"apiserver_mutating_admission_policy_check_total error_type=no_error policy=labelled policy_binding=everywhere",
		"apiserver_validating_admission_policy_check_duration_seconds enforcement_action=deny error_type=no_error policy=short policy_binding=everywhere",
		"apiserver_validating_admission_policy_check_total enforcement_action=deny error_type=no_error policy=short policy_binding=everywhere",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
