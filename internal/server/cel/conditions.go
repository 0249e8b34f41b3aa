package cel

import (
	"context"
	"sync"

	celtypes "github.com/google/cel-go/common/types"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/knarr-io/knarr/internal/api/expression"
)

// Conditions are match conditions: all of them have to be true for a webhook to be called, a policy to be evaluated (KEP-3716).
type Conditions struct{ compiled func() *set }

func newConditions(list []admissionregistrationv1.MatchCondition) *Conditions {
	return &Conditions{sync.OnceValue(func() *set {
		return compile(expression.NewCompiler(), conditionTexts(list), expression.Declared{HasAuthorizer: true})
	})}
}

func conditionTexts(list []admissionregistrationv1.MatchCondition) []*expression.Text {
	texts := make([]*expression.Text, len(list))
	for i, c := range list {
		texts[i] = expression.Condition(c.Name, c.Expression)
	}
	return texts
}

// Match reports whether all conditions are true of a write. One that is false decides, and is named as excluded; else an error
// means that conditions could not be evaluated: the failure policy says what follows.
func (c *Conditions) Match(ctx context.Context, v *View) (matched bool, excluded string, _ error) {
	return match(ctx, c.compiled(), v, nil)
}

// match evaluates conditions with the parameters of a policy.
func match(ctx context.Context, s *set, v *View, params runtime.Object) (matched bool, excluded string, _ error) {
	results, _, err := s.evaluate(ctx, v, inputs{params: params, authorizer: true}, celconfig.RuntimeCELCostBudgetMatchConditions)
	if err != nil {
		return false, "", err
	}
	var failed []error
	for _, r := range results {
		if r.Error != nil {
			failed = append(failed, r.Error)
		}
		if r.EvalResult == celtypes.False {
			return false, r.ExpressionAccessor.(*expression.Text).Name, nil
		}
	}
	if len(failed) > 0 {
		return false, "", utilerrors.NewAggregate(failed)
	}
	return true, "", nil
}

// compile compiles expressions, each of which may be nil for none.
func compile(c *expression.Compiler, texts []*expression.Text, d expression.Declared) *set {
	programs := make([]expression.Program, len(texts))
	for i, t := range texts {
		if t != nil {
			programs[i] = c.Compile(t, d, environment.StoredExpressions)
		}
	}
	return newSet(programs)
}
