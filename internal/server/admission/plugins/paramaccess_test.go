package plugins_test

import (
	"context"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/plugins"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// readers may read what they are named after: "get configmaps".
type readers struct{}

func (readers) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.User.GetName() == a.Verb+" "+a.Resource {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

// TestParamAccess: whoever writes a policy about parameters, or a binding that names them, may read them.
func TestParamAccess(t *testing.T) {
	c, _ := clienttest.NewRegistry(t, func(cfg *registry.Config) {
		cfg.Admission = func(front *registry.Registry) admission.Chain {
			return admission.Chain{plugins.ParamAccess{Reader: registry.NewReader(cfg.Store), Catalog: func() *api.Catalog { return front.Served().Now() }, Authorizer: readers{}}}
		}
	})
	policy := func(name, kind string) *admissionregistrationv1.ValidatingAdmissionPolicy {
		return &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			ParamKind: &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: kind},
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{Operations: []admissionregistrationv1.OperationType{"*"},
					Rule: admissionregistrationv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{"*"}}},
			}}},
			Validations: []admissionregistrationv1.Validation{{Expression: "true"}},
		}}
	}
	deny := admissionregistrationv1.DenyAction
	binding := func(name, of string, ref admissionregistrationv1.ParamRef) *admissionregistrationv1.ValidatingAdmissionPolicyBinding {
		ref.ParameterNotFoundAction = &deny
		return &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: of, ParamRef: &ref, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		}}
	}
	byName, bySelector := admissionregistrationv1.ParamRef{Name: "x", Namespace: "default"}, admissionregistrationv1.ParamRef{Selector: &metav1.LabelSelector{}}
	for _, tc := range []struct {
		who  string
		obj  api.Object
		want string
	}{
		{"get configmaps", policy("a", "ConfigMap"), ""},
		{"get secrets", policy("b", "ConfigMap"), `spec.paramKind: Forbidden: user`},
		{"get secrets", policy("b", "Frog"), `must have "get" permission on all objects of the referenced paramKind (kind=Frog, apiVersion=v1)`},
		{"get *", policy("b", "Frog"), ""},
		{"get configmaps", binding("a", "a", byName), ""},
		{"list configmaps", binding("b", "a", byName), `spec.paramRef: Forbidden: user`},
		{"list configmaps", binding("b", "a", bySelector), ""},
		{"get configmaps", binding("c", "a", bySelector), `does not have "list" permission on the object referenced by paramRef`},
		{"get configmaps", binding("c", "none", byName), `unable to get policy none to determine minimum required permissions`},
		{"get secrets", binding("c", "b", byName), `unable to resolve paramKind`},
	} {
		_, err := c.Create(as(tc.who), tc.obj)
		if tc.want == "" && err != nil || tc.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s writes %T %s: %v, want %q", tc.who, tc.obj, tc.obj.GetName(), err, tc.want)
		}
	}
}
