package policy_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
	"github.com/knarr-io/knarr/internal/server/admission/policy"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/cel"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/request"
)

// cluster is a front door whose only admission plugins are policies.
type cluster struct {
	*client.Local
	t        testing.TB
	registry *registry.Registry
	metrics  *policy.Metrics
	log      strings.Builder
}

func start(t testing.TB, further ...admission.Plugin) *cluster {
	t.Helper()
	return startWith(t, nil, further...)
}

// startWith has policies from files, too.
func startWith(t testing.TB, files *manifests.Files, further ...admission.Plugin) *cluster {
	t.Helper()
	c := &cluster{t: t, metrics: policy.NewMetrics()}
	c.Local, c.registry = clienttest.NewRegistry(t, func(cfg *registry.Config) {
		cfg.Admission = func(front *registry.Registry) admission.Chain {
			p := policy.Config{
				Source: registry.NewReader(cfg.Store), Catalog: func() *api.Catalog { return front.Served().Now() }, Authorizer: authz.Union{authz.Masters{}},
				Programs: &cel.Programs{}, Files: files, Metrics: c.metrics, Log: slog.New(slog.NewTextHandler(&c.log, nil)),
			}
			return append(admission.Chain{policy.NewMutating(p), policy.NewValidating(p)}, further...)
		}
	})
	return c
}

// add creates what a manifest of several documents describes.
func (c *cluster) add(manifests string) {
	c.t.Helper()
	for doc := range strings.SplitSeq(manifests, "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			c.t.Fatal(err)
		}
		obj := api.BuiltinCatalog().Kind(kind.GroupVersionKind()).New()
		if err := yaml.UnmarshalStrict([]byte(doc), obj); err != nil {
			c.t.Fatal(err)
		}
		clienttest.Create(c.t, c, obj)
	}
}

// remove deletes the policy short and its binding.
func (c *cluster) remove(ctx context.Context) {
	c.t.Helper()
	for res, name := range map[*api.Resource]string{api.ValidatingAdmissionPolicies: "short", api.ValidatingAdmissionPolicyBindings: "everywhere"} {
		if err := c.Delete(ctx, res, api.Key{Name: name}, metav1.DeleteOptions{}); err != nil {
			c.t.Errorf("deleting %s: %v", name, err)
		}
	}
}

// said collects warnings.
type said struct {
	mu   sync.Mutex
	text []string
}

func (s *said) AddWarning(_, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, text)
}

// ann is a context in which ann writes, and what she is warned of.
func ann() (context.Context, *said) {
	s := &said{}
	ctx := request.With(context.Background(), &request.Info{User: &user.DefaultInfo{Name: "ann", Groups: []string{"cooks"}}})
	return warning.WithWarningRecorder(ctx, s), s
}

func configMap(name string, data ...string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{}}
	for i := 0; i < len(data); i += 2 {
		cm.Data[data[i]] = data[i+1]
	}
	return cm
}

// rules are the match constraints of most policies here.
const rules = `{resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [configmaps], operations: [CREATE, UPDATE]}]}`

// short is a ValidatingAdmissionPolicy and its binding, of which tests replace parts.
const short = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: short}
spec:
  matchConstraints: ` + rules + `
  variables: [{name: size, expression: size(object.data)}]
  validations:
  - {expression: variables.size < 2, messageExpression: "string(variables.size) + ' entries in ' + object.metadata.name"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: everywhere}
spec: {policyName: short, validationActions: [Deny]}
`

func replaced(s string, oldnew ...string) string {
	out := strings.NewReplacer(oldnew...).Replace(s)
	if out == s {
		panic("nothing was replaced")
	}
	return out
}

// TestRefusals: what a policy says stands in the answer, word for word as kube-apiserver's.
func TestRefusals(t *testing.T) {
	const check = `{expression: variables.size < 2, messageExpression: "string(variables.size) + ' entries in ' + object.metadata.name"}`
	for _, tc := range []struct {
		name    string
		with    string // a policy and its binding
		message string
		reason  metav1.StatusReason
		code    int32
	}{
		{"as it is", short, `configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: 2 entries in long`,
			metav1.StatusReasonInvalid, 422},
		{"a reason", replaced(short, check, `{expression: variables.size < 2, message: too many, reason: Forbidden}`),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: too many`, metav1.StatusReasonForbidden, 403},
		{"no message", replaced(short, check, `{expression: variables.size < 2}`),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: failed expression: variables.size < 2`,
			metav1.StatusReasonInvalid, 422},
		{"a message that cannot be made", replaced(short, check, `{expression: variables.size < 2, message: too many, messageExpression: string(object.nothing)}`),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: too many`, metav1.StatusReasonInvalid, 422},
		{"an expression that fails", replaced(short, check, `{expression: object.data.missing == ''}`),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: ` +
				`expression 'object.data.missing == ''' resulted in error: no such key: missing`, metav1.StatusReasonInvalid, 422},
		{"an expression that fails, ignored", replaced(short, check, `{expression: object.data.missing == ''}`, "spec:\n  match", "spec:\n  failurePolicy: Ignore\n  match"), "", "", 0},
		{"the user", replaced(short, "variables.size < 2", "request.userInfo.username != 'ann' || variables.size < 2"),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: 2 entries in long`, metav1.StatusReasonInvalid, 422},
		{"a condition that is false", replaced(short, "  variables:", "  matchConditions: [{name: others, expression: request.userInfo.username != 'ann'}]\n  variables:"), "", "", 0},
		{"a condition that is true", replaced(short, "  variables:", "  matchConditions: [{name: her, expression: \"'cooks' in request.userInfo.groups\"}]\n  variables:"),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: 2 entries in long`, metav1.StatusReasonInvalid, 422},
		{"a condition that fails", replaced(short, "  variables:", "  matchConditions: [{name: her, expression: object.data.missing == ''}]\n  variables:"),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: ` +
				`expression 'object.data.missing == ''' resulted in error: no such key: missing`, metav1.StatusReasonInvalid, 422},
		{"the namespace", replaced(short, "variables.size < 2", "namespaceObject.metadata.name != 'default'", "string(variables.size) + ' entries in ' + object.metadata.name", "'no'"),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: no`, metav1.StatusReasonInvalid, 422},
		{"the authorizer", replaced(short, "variables.size < 2", "authorizer.group('').resource('secrets').check('get').allowed()"),
			`configmaps "long" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'everywhere' denied request: 2 entries in long`, metav1.StatusReasonInvalid, 422},
		{"a binding for others", replaced(short, "policyName: short", "policyName: short, matchResources: {objectSelector: {matchLabels: {a: b}}}"), "", "", 0},
		{"a binding for other namespaces", replaced(short, "policyName: short", "policyName: short, matchResources: {namespaceSelector: {matchLabels: {a: b}}}"), "", "", 0},
		{"a binding with exceptions", replaced(short, "policyName: short",
			`policyName: short, matchResources: {excludeResourceRules: [{resourceNames: [long], apiGroups: ["*"], apiVersions: ["*"], resources: ["*"], operations: ["*"]}]}`), "", "", 0},
		{"a binding of another policy", replaced(short, "policyName: short", "policyName: other"), "", "", 0},
	} {
		c := start(t)
		c.add(tc.with)
		ctx, _ := ann()
		if _, err := c.Create(ctx, configMap("brief", "missing", "")); err != nil && tc.name != "the namespace" && tc.name != "the authorizer" {
			t.Errorf("%s: what is within the rule: %v", tc.name, err)
		}
		_, err := c.Create(ctx, configMap("long", "a", "b", "c", "d"))
		if tc.message == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		s := apierrors.APIStatus(nil)
		if s, _ = err.(apierrors.APIStatus); s == nil || s.Status().Message != tc.message || s.Status().Reason != tc.reason || s.Status().Code != tc.code {
			t.Errorf("%s: %v, want %s %d %s", tc.name, err, tc.reason, tc.code, tc.message)
		}
	}
}

// TestActions: Warn warns, Audit notes, and neither refuses.
func TestActions(t *testing.T) {
	c := start(t)
	c.add(replaced(short, "[Deny]", "[Warn, Audit]", "  variables:", "  auditAnnotations: [{key: count, valueExpression: \"'it has ' + string(variables.size)\"}]\n  variables:"))
	ctx, heard := ann()
	if _, err := c.Create(ctx, configMap("long", "a", "b", "c", "d")); err != nil {
		t.Fatal(err)
	}
	want := "Validation failed for ValidatingAdmissionPolicy 'short' with binding 'everywhere': 2 entries in long"
	if len(heard.text) != 1 || heard.text[0] != want {
		t.Errorf("warned of %q, want %q", heard.text, want)
	}
	for _, want := range []string{
		`key=short/count value="it has 2"`,
		`key=validation.policy.admission.k8s.io/validation_failure`, `\"message\":\"2 entries in long\",\"policy\":\"short\",\"binding\":\"everywhere\",\"expressionIndex\":0`,
	} {
		if !strings.Contains(c.log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, c.log.String())
		}
	}
}

// TestAPolicyJudgesTheNextWrite: what has been stored applies, and what has been deleted or changed does no longer.
func TestAPolicyJudgesTheNextWrite(t *testing.T) {
	c := start(t)
	ctx, _ := ann()
	n := 0
	refused := func(want bool) {
		t.Helper()
		n++
		_, err := c.Create(ctx, configMap(fmt.Sprintf("long%d", n), "a", "b", "c", "d"))
		if apierrors.IsInvalid(err) != want || err != nil && !want {
			t.Fatalf("%v, want refused: %v", err, want)
		}
	}
	for range 3 {
		refused(false)
		c.add(short)
		refused(true)
		p, err := client.Get[*admissionregistrationv1.ValidatingAdmissionPolicy](ctx, c, api.Key{Name: "short"})
		if err != nil {
			t.Fatal(err)
		}
		p = p.DeepCopy()
		p.Spec.Validations[0].Expression = "variables.size < 3"
		if _, err := c.Update(ctx, p, ""); err != nil {
			t.Fatal(err)
		}
		refused(false)
		c.remove(ctx)
	}
}

// TestNothingStopsRepair: a policy that refuses everything refuses neither policies nor bindings.
func TestNothingStopsRepair(t *testing.T) {
	c := start(t)
	c.add(replaced(short, rules, `{resourceRules: [{apiGroups: ["*"], apiVersions: ["*"], resources: ["*/*"], operations: ["*"]}]}`, "variables.size < 2", "false", "size(object.data)", "1"))
	ctx, _ := ann()
	if _, err := c.Create(ctx, configMap("brief")); !apierrors.IsInvalid(err) {
		t.Fatalf("everything is refused, but: %v", err)
	}
	c.remove(ctx)
	if _, err := c.Create(ctx, configMap("brief")); err != nil {
		t.Error(err)
	}
}

// withParams is a policy whose bound stands in a ConfigMap.
const withParams = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: bounded}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], resources: [deployments], operations: ["*"]}]}
  validations:
  - {expression: "object.spec.replicas <= int(params.data.most)", messageExpression: "'at most ' + params.data.most + ', says ' + params.kind + ' ' + params.metadata.name"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: by-name}
spec: {policyName: bounded, validationActions: [Deny], paramRef: {name: bound, namespace: default, parameterNotFoundAction: Deny}}
`

// TestParams: parameters are found by name or by labels, in the namespace named or in that of the object.
func TestParams(t *testing.T) {
	const ref = "paramRef: {name: bound, namespace: default, parameterNotFoundAction: Deny}"
	refused := "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'bounded' with binding 'by-name' denied request: "
	for _, tc := range []struct{ name, with, message string }{
		{"by name", withParams, refused + "at most 3, says ConfigMap bound"},
		{"by name in the namespace of the object", replaced(withParams, ", namespace: default", ""), refused + "at most 3, says ConfigMap bound"},
		{"by labels", replaced(withParams, ref, "paramRef: {selector: {matchLabels: {is: bound}}, parameterNotFoundAction: Deny}"), refused + "at most 3, says ConfigMap bound"},
		{"not there", replaced(withParams, "name: bound,", "name: none,"),
			refused + "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"},
		{"not there, and allowed", replaced(withParams, "name: bound,", "name: none,", "Action: Deny", "Action: Allow"), ""},
		{"without any", replaced(withParams, ", "+ref, ""), refused + "expression 'object.spec.replicas <= int(params.data.most)' resulted in error: no such key: data"},
		{"of a kind that nobody serves", replaced(withParams, "kind: ConfigMap", "kind: Frog"),
			"deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'bounded' denied request: failed to configure policy: " +
				"failed to find resource referenced by paramKind: '/v1, Kind=Frog'"},
		{"of a kind that nobody serves, ignored", replaced(withParams, "kind: ConfigMap", "kind: Frog", "spec:\n  param", "spec:\n  failurePolicy: Ignore\n  param"), ""},
		{"outside namespaces, with one", replaced(withParams, "kind: ConfigMap}", "kind: Namespace}"),
			refused + "failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`"},
	} {
		c := start(t)
		bound := configMap("bound", "most", "3")
		bound.Labels = map[string]string{"is": "bound"}
		clienttest.Create(t, c, bound)
		c.add(tc.with)
		ctx, _ := ann()
		_, err := c.Create(ctx, deployment(4))
		if tc.message == "" && err != nil || tc.message != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.message)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.message)
		}
	}
}

func deployment(replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": "d"}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
	}}
}

// TestPoliciesHaveTheFirstWord: who is refused by a policy does not learn which names are taken.
func TestPoliciesHaveTheFirstWord(t *testing.T) {
	c := start(t)
	clienttest.Create(t, c, configMap("there", "a", "b", "c", "d"))
	c.add(short)
	ctx, _ := ann()
	stored := configMap("none", "a", "b", "c", "d")
	stored.ResourceVersion = "1"
	for _, cm := range []*corev1.ConfigMap{configMap("there", "a", "b", "c", "d"), stored} {
		if _, err := c.Create(ctx, cm); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "2 entries in "+cm.Name) {
			t.Errorf("%s: %v", cm.Name, err)
		}
	}
	if _, err := c.Create(ctx, configMap("there", "a", "b")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("what the policy allows: %v", err)
	}
}
