package policycheck

import (
	"strings"
	"testing"
	"testing/synctest"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

// policy is one about Deployments and Pods.
func policy(checks ...admissionregistrationv1.Validation) *admissionregistrationv1.ValidatingAdmissionPolicy {
	return &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			ParamKind: &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{"*"},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}},
				},
			}}},
			Variables:   []admissionregistrationv1.Variable{{Name: "replicas", Expression: "object.spec.replicas"}},
			Validations: checks,
		},
	}
}

// TestWarnings: what does not fit the types of the resources that a policy names, or those of its parameters, stands in its status by its place.
func TestWarnings(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		t := c.T
		c.Start(New(c.Client, api.BuiltinCatalog))
		clienttest.Create(t, c.Client, policy(
			admissionregistrationv1.Validation{Expression: "object.spec.replicas > 1"},
			admissionregistrationv1.Validation{Expression: "object.spec.replicas > '1'", MessageExpression: "'no ' + string(object.spec.frogs)"},
			admissionregistrationv1.Validation{Expression: "variables.replicas == 'x'"},
			admissionregistrationv1.Validation{Expression: "params.data.most == 3"},
			admissionregistrationv1.Validation{Expression: "object.spec.template.spec.containers.all(c, c.image.startsWith('x'))"},
		))
		synctest.Wait()
		p := get(t, c.Client)
		if p.Status.ObservedGeneration != 1 || p.Status.TypeChecking == nil {
			t.Fatalf("status %+v", p.Status)
		}
		want := []struct{ field, text string }{
			{"spec.validations[1].expression", "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"},
			{"spec.validations[1].messageExpression", "undefined field 'frogs'"},
			{"spec.validations[2].expression", "found no matching overload for '_==_' applied to '(int, string)'"},
			{"spec.validations[3].expression", "found no matching overload for '_==_' applied to '(string, int)'"},
		}
		got := p.Status.TypeChecking.ExpressionWarnings
		if len(got) != len(want) {
			t.Fatalf("%d warnings: %v", len(got), got)
		}
		for i, w := range want {
			if got[i].FieldRef != w.field || !strings.Contains(got[i].Warning, w.text) {
				t.Errorf("%s: %s, want %s: %s", got[i].FieldRef, got[i].Warning, w.field, w.text)
			}
		}
	})
}

// TestCheckedOnce: a policy is checked again when its spec has changed, and not for its own status.
func TestCheckedOnce(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		t := c.T
		c.Start(New(c.Client, api.BuiltinCatalog))
		clienttest.Create(t, c.Client, policy(admissionregistrationv1.Validation{Expression: "object.spec.replicas > '1'"}))
		synctest.Wait()
		p := get(t, c.Client)
		version := p.ResourceVersion
		p = p.DeepCopy()
		p.Labels = map[string]string{"a": "b"}
		if _, err := c.Client.Update(t.Context(), p, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p = get(t, c.Client)
		if p.Status.ObservedGeneration != 1 || p.ResourceVersion == version {
			t.Errorf("after a label was added: %+v", p.Status)
		}
		p = p.DeepCopy()
		p.Spec.Validations[0].Expression = "object.spec.replicas > 1"
		if _, err := c.Client.Update(t.Context(), p, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if p = get(t, c.Client); p.Status.ObservedGeneration != 2 || len(p.Status.TypeChecking.ExpressionWarnings) != 0 {
			t.Errorf("after it was mended: %+v", p.Status)
		}
	})
}

func get(t *testing.T, c client.Client) *admissionregistrationv1.ValidatingAdmissionPolicy {
	t.Helper()
	p, err := client.Get[*admissionregistrationv1.ValidatingAdmissionPolicy](t.Context(), c, api.Key{Name: "p"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
