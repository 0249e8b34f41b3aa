package cel

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// declared names the variables that an expression may use, besides object, oldObject, request and namespaceObject.
type declared = plugincel.OptionalVariableDeclarations

// base are the environments of all expressions that name no variables of a policy. They are made at the first of them.
var base = sync.OnceValue(func() plugincel.Compiler { return plugincel.NewCompiler(environments()) })

func environments() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
}

// compiler compiles the expressions of one policy or webhook.
type compiler struct {
	plugincel.Compiler
	// composed is the compiler of a policy that has variables; else nil. Its environments are its own, as their types hold the
	// variables' types.
	composed *plugincel.CompositedCompiler
}

// newCompiler returns a compiler for expressions that may name variables, if there are some. One that does not compile is an error of
// those that name it.
func newCompiler(variables []plugincel.NamedExpressionAccessor, d declared) (*compiler, error) {
	if len(variables) == 0 {
		return &compiler{Compiler: base()}, nil
	}
	c, err := plugincel.NewCompositedCompiler(environments())
	if err != nil {
		return nil, fmt.Errorf("making the environment of a policy's expressions: %w", err)
	}
	c.CompileAndStoreVariables(variables, d, environment.StoredExpressions)
	return &compiler{Compiler: c.Compiler, composed: c}, nil
}

// conditions compiles expressions that are evaluated together; nil stands for none.
func (c *compiler) conditions(texts []plugincel.ExpressionAccessor, d declared) plugincel.ConditionEvaluator {
	if c.composed != nil {
		return c.composed.CompileCondition(texts, d, environment.StoredExpressions)
	}
	programs := make([]plugincel.CompilationResult, len(texts))
	for i, t := range texts {
		if t != nil {
			programs[i] = c.CompileCELExpression(t, d, environment.StoredExpressions)
		}
	}
	return plugincel.NewCondition(programs)
}

// mutation compiles an expression that evaluates to a patch.
func (c *compiler) mutation(text plugincel.ExpressionAccessor, d declared) plugincel.MutatingEvaluator {
	return plugincel.NewMutatingEvaluator(c.CompileCELExpression(text, d, environment.StoredExpressions))
}

// scope returns what evaluates the policy's variables when they are named, or nil. It lets go of what only compiling needs.
func (c *compiler) scope() *plugincel.CompositedCompiler {
	if c.composed != nil {
		c.composed.Compiler, c.composed.ConditionCompiler, c.composed.MutatingCompiler = nil, nil, nil
	}
	return c.composed
}

// Inputs are the variables of a policy that are not the write's own.
type Inputs struct {
	Params    runtime.Object    // with its kind; nil where there is none
	Namespace *corev1.Namespace // of the object that is written; nil where it has none
}

// within returns ctx with the variables of a policy.
func within(ctx context.Context, scope *plugincel.CompositedCompiler) context.Context {
	if scope == nil {
		return ctx
	}
	return scope.CreateContext(ctx)
}
