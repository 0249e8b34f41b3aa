package cel

import (
	"context"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	upstream "k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/knarr-io/knarr/internal/api"
)

// Mutating is a compiled MutatingAdmissionPolicy (KEP-3962): its conditions and mutations.
type Mutating struct{ compiled func() mutations }

type mutations struct {
	err        error                        // the environment could not be made
	conditions plugincel.ConditionEvaluator // nil if there are none
	patches    []patch.Patcher
	scope      *plugincel.CompositedCompiler
}

func newMutating(spec *admissionregistrationv1.MutatingAdmissionPolicySpec) *Mutating {
	return &Mutating{sync.OnceValue(func() mutations { return compileMutating(spec) })}
}

// Match reports whether the policy's match conditions are true of a write; an error says why that is not known.
func (p *Mutating) Match(ctx context.Context, v *View, in Inputs) (bool, error) {
	m := p.compiled()
	if m.err != nil || m.conditions == nil {
		return m.err == nil, m.err
	}
	matched, _, err := evaluate(ctx, m.conditions, v, in)
	return matched, err
}

// Patch returns what the policy's mutation i makes of the object of v, which stays as it is. types are the typed values of the object's kind. What
// comes back may be unstructured although the object is not.
func (p *Mutating) Patch(ctx context.Context, i int, v *View, in Inputs, types managedfields.TypeConverter) (runtime.Object, error) {
	m := p.compiled()
	return m.patches[i].Patch(within(ctx, m.scope), patch.Request{
		MatchedResource: v.resource, VersionedAttributes: v.attrs, ObjectInterfaces: interfaces(), Namespace: in.Namespace, TypeConverter: types,
		OptionalVariables: plugincel.OptionalVariableBindings{VersionedParams: in.Params, Authorizer: v.authorizer},
	}, celconfig.RuntimeCELCostBudget)
}

// interfaces are how patches make and read objects.
var interfaces = sync.OnceValue(func() upstream.ObjectInterfaces { return upstream.NewObjectInterfacesFromScheme(api.Scheme) })

func compileMutating(spec *admissionregistrationv1.MutatingAdmissionPolicySpec) (m mutations) {
	d := declared{HasParams: spec.ParamKind != nil, HasAuthorizer: true}
	c, err := newCompiler(variableTexts(spec.Variables), d)
	if err != nil {
		return mutations{err: err}
	}
	if len(spec.MatchConditions) > 0 {
		m.conditions = c.conditions(conditionTexts(spec.MatchConditions), d)
	}
	d.HasPatchTypes = true
	for _, mutation := range spec.Mutations {
		switch {
		case mutation.PatchType == admissionregistrationv1.PatchTypeJSONPatch && mutation.JSONPatch != nil:
			m.patches = append(m.patches, patch.NewJSONPatcher(c.mutation(&patch.JSONPatchCondition{Expression: mutation.JSONPatch.Expression}, d)))
		case mutation.PatchType == admissionregistrationv1.PatchTypeApplyConfiguration && mutation.ApplyConfiguration != nil:
			m.patches = append(m.patches,
				patch.NewApplyConfigurationPatcher(c.mutation(&patch.ApplyConfigurationCondition{Expression: mutation.ApplyConfiguration.Expression}, d)))
		}
	}
	m.scope = c.scope()
	return m
}

// Mutations returns how many mutations there are to Patch with.
func (p *Mutating) Mutations() int { return len(p.compiled().patches) }
