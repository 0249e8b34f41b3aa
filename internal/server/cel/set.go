package cel

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"

	"github.com/knarr-io/knarr/internal/api/expression"
)

// Result is what an expression evaluated to, how long that took, or what went wrong.
type Result = plugincel.EvaluationResult

// set is compiled expressions that are evaluated together, over one budget.
type set struct {
	evaluator plugincel.ConditionEvaluator
	scope     *plugincel.CompositedCompiler // evaluates the variables that they name; nil if there are none
}

// inputs are the variables that only some expressions have.
type inputs struct {
	params     runtime.Object
	namespace  *corev1.Namespace
	authorizer bool
}

func newSet(programs []expression.Program) *set {
	return &set{evaluator: plugincel.NewCondition(programs)}
}

// evaluate evaluates all expressions of the set and returns what is left of the budget. The error is that of the budget, or an object that
// cannot be looked at; what is wrong with an expression stands in its result.
func (s *set) evaluate(ctx context.Context, v *View, in inputs, budget int64) ([]Result, int64, error) {
	if s.scope != nil {
		ctx = s.scope.CreateContext(ctx)
	}
	return s.evaluator.ForInput(ctx, v.attrs, v.request, v.bindings(in), plugincel.CreateNamespaceObject(in.namespace), budget)
}

func (v *View) bindings(in inputs) plugincel.OptionalVariableBindings {
	b := plugincel.OptionalVariableBindings{VersionedParams: in.params}
	if in.authorizer {
		b.Authorizer = v.authorizer
	}
	return b
}
