package cel

import (
	"context"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// Validating is a compiled ValidatingAdmissionPolicy (KEP-3488): its conditions, validations with their messages, and audit annotations.
type Validating struct{ compiled func() validating.Validator }

// Verdict is what a policy thinks of a write: a decision for each validation, and audit annotations. It has none if a match condition is false.
type Verdict = validating.ValidateResult

func newValidating(spec *admissionregistrationv1.ValidatingAdmissionPolicySpec) *Validating {
	return &Validating{sync.OnceValue(func() validating.Validator { return compileValidating(spec) })}
}

// Evaluate evaluates the policy for a write and one parameter. What goes wrong stands in the verdict, weighed by the failure policy.
func (p *Validating) Evaluate(ctx context.Context, v *View, in Inputs) Verdict {
	return p.compiled().Validate(ctx, v.resource, v.attrs, in.Params, in.Namespace, celconfig.RuntimeCELCostBudget, v.authorizer)
}

func compileValidating(spec *admissionregistrationv1.ValidatingAdmissionPolicySpec) validating.Validator {
	params := spec.ParamKind != nil
	full, plain := declared{HasParams: params, HasAuthorizer: true}, declared{HasParams: params}
	c, err := newCompiler(variableTexts(spec.Variables), full)
	if err != nil {
		return validating.NewValidator(nil, nil, nil, nil, spec.FailurePolicy, err)
	}
	var conditions matchconditions.Matcher
	if len(spec.MatchConditions) > 0 {
		conditions = matchconditions.NewMatcher(c.conditions(conditionTexts(spec.MatchConditions), full), spec.FailurePolicy, "policy", "validate", "")
	}
	checks, messages := make([]plugincel.ExpressionAccessor, len(spec.Validations)), make([]plugincel.ExpressionAccessor, len(spec.Validations))
	for i, v := range spec.Validations {
		checks[i] = &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason}
		if v.MessageExpression != "" {
			messages[i] = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
	}
	annotations := make([]plugincel.ExpressionAccessor, len(spec.AuditAnnotations))
	for i, a := range spec.AuditAnnotations {
		annotations[i] = &validating.AuditAnnotationCondition{Key: a.Key, ValueExpression: a.ValueExpression}
	}
	return validating.NewValidator(c.conditions(checks, full), conditions, c.conditions(annotations, full), c.conditions(messages, plain), spec.FailurePolicy, nil)
}

func variableTexts(list []admissionregistrationv1.Variable) []plugincel.NamedExpressionAccessor {
	texts := make([]plugincel.NamedExpressionAccessor, len(list))
	for i, v := range list {
		texts[i] = &validating.Variable{Name: v.Name, Expression: v.Expression}
	}
	return texts
}
