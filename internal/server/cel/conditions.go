package cel

import (
	"context"
	"sync"

	celtypes "github.com/google/cel-go/common/types"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// Conditions are match conditions: all of them have to be true for a webhook to be called, a policy to be evaluated (KEP-3716).
type Conditions struct {
	compiled func() plugincel.ConditionEvaluator
}

func newConditions(list []admissionregistrationv1.MatchCondition) *Conditions {
	return &Conditions{sync.OnceValue(func() plugincel.ConditionEvaluator {
		return (&compiler{Compiler: base()}).conditions(conditionTexts(list), declared{HasAuthorizer: true})
	})}
}

func conditionTexts(list []admissionregistrationv1.MatchCondition) []plugincel.ExpressionAccessor {
	texts := make([]plugincel.ExpressionAccessor, len(list))
	for i := range list {
		texts[i] = (*matchconditions.MatchCondition)(&list[i])
	}
	return texts
}

// Match reports whether all conditions are true of a write. One that is false decides, and is named as excluded; else an error
// means that conditions could not be evaluated: the failure policy says what follows.
func (c *Conditions) Match(ctx context.Context, v *View) (matched bool, excluded string, _ error) {
	return evaluate(ctx, c.compiled(), v, Inputs{})
}

// evaluate evaluates conditions. They do not see the namespace, as in Kubernetes.
func evaluate(ctx context.Context, conditions plugincel.ConditionEvaluator, v *View, in Inputs) (matched bool, excluded string, _ error) {
	bound := plugincel.OptionalVariableBindings{VersionedParams: in.Params, Authorizer: v.authorizer}
	results, _, err := conditions.ForInput(ctx, v.attrs, v.request, bound, nil, celconfig.RuntimeCELCostBudgetMatchConditions)
	if err != nil {
		return false, "", err
	}
	var failed []error
	for _, r := range results {
		if r.Error != nil {
			failed = append(failed, r.Error)
		}
		if r.EvalResult == celtypes.False {
			return false, r.ExpressionAccessor.(*matchconditions.MatchCondition).Name, nil
		}
	}
	return len(failed) == 0, "", utilerrors.NewAggregate(failed)
}
