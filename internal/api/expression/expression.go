// Package expression compiles the CEL expressions of admission: match conditions, validations and their messages, audit annotations,
// variables and mutations (https://kubernetes.io/docs/reference/using-api/cel/).
//
// What flows through it: a [Text] - an expression and the types that it may evaluate to - becomes a program over the variables that
// [Declared] names. Validation of policies and webhooks compiles to see that expressions are sound; internal/server/cel compiles to evaluate
// them. What must stay true: environments are made at the first expression that is compiled, never before; expressions that name no
// variables of a policy share them. Tests: TestCompilingSaysWhatIsWrong, TestVariablesAreTyped.
package expression

import (
	"fmt"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Text is an expression as it was written. It implements upstream's NamedExpressionAccessor.
type Text struct {
	Name       string // of a condition, a variable or an audit annotation; empty for others
	Expression string
	types      []*celgo.Type
}

// GetName returns the name.
func (t *Text) GetName() string { return t.Name }

// GetExpression returns the expression.
func (t *Text) GetExpression() string { return t.Expression }

// ReturnTypes returns the types that the expression may evaluate to.
func (t *Text) ReturnTypes() []*celgo.Type { return t.types }

// Condition is an expression that is true or false.
func Condition(name, expression string) *Text {
	return &Text{name, expression, []*celgo.Type{celgo.BoolType}}
}

// Message is an expression that says why something is refused.
func Message(expression string) *Text { return &Text{"", expression, []*celgo.Type{celgo.StringType}} }

// Annotation is an expression that evaluates to the value of an audit annotation, or to null.
func Annotation(key, expression string) *Text {
	return &Text{key, expression, []*celgo.Type{celgo.StringType, celgo.NullType}}
}

// Variable is an expression that others name as variables.NAME. Its value may be of any type.
func Variable(name, expression string) *Text {
	return &Text{name, expression, []*celgo.Type{celgo.AnyType, celgo.DynType}}
}

// Configuration is an expression that evaluates to an apply configuration (Object{...}).
func Configuration(expression string) *Text {
	return &Text{"", expression, []*celgo.Type{types.NewObjectType("Object")}}
}

// Patch is an expression that evaluates to the operations of a JSON patch ([JSONPatch{...}]).
func Patch(expression string) *Text {
	return &Text{"", expression, []*celgo.Type{celgo.ListType(types.NewObjectType("JSONPatch"))}}
}

// Declared names the variables that an expression may use, besides object, oldObject, request and namespaceObject.
type Declared = plugincel.OptionalVariableDeclarations

// Program is a compiled expression, or what is wrong with it.
type Program = plugincel.CompilationResult

// Compiler compiles the expressions of one policy or webhook.
type Compiler struct {
	compiler plugincel.Compiler
	composed *plugincel.CompositedCompiler // nil where no expression names a variable of the policy
}

// base are the environment and the compiler of all expressions that name no variables of a policy.
var base = sync.OnceValue(func() plugincel.Compiler { return plugincel.NewCompiler(environments()) })

func environments() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
}

// NewCompiler returns a compiler for expressions that do not name variables of a policy.
func NewCompiler() *Compiler { return &Compiler{compiler: base()} }

// NewComposingCompiler returns a compiler for expressions that may name variables compiled before them.
func NewComposingCompiler() (*Compiler, error) {
	c, err := plugincel.NewCompositedCompiler(environments())
	if err != nil {
		return nil, fmt.Errorf("making the environment of a policy's expressions: %w", err)
	}
	return &Compiler{compiler: c.Compiler, composed: c}, nil
}

// Compile compiles an expression. Expressions that have just been written may use what all servers of a cluster understand while it is
// upgraded (environment.NewExpressions); stored ones, what this server does.
func (c *Compiler) Compile(t *Text, d Declared, mode environment.Type) Program {
	return c.compiler.CompileCELExpression(t, d, mode)
}

// Variable compiles an expression that those compiled afterwards may name.
func (c *Compiler) Variable(t *Text, d Declared, mode environment.Type) Program {
	if c.composed == nil {
		return Program{ExpressionAccessor: t, Error: &apiservercel.Error{Type: apiservercel.ErrorTypeInternal, Detail: "variable composition is not allowed"}}
	}
	return c.composed.CompileAndStoreVariable(t, d, mode)
}

// Scope returns what evaluates the variables that have been compiled, once they are named; nil if there can be none. It lets go of what only
// compiling needs, so c compiles nothing afterwards.
func (c *Compiler) Scope() *plugincel.CompositedCompiler {
	if c.composed == nil {
		return nil
	}
	c.composed.Compiler, c.composed.ConditionCompiler, c.composed.MutatingCompiler = nil, nil, nil
	c.compiler = nil
	return c.composed
}

// Check returns what is wrong with a compiled expression as an error of a field, or nil.
func Check(path *field.Path, t *Text, p Program) *field.Error {
	if p.Error == nil {
		return nil
	}
	switch p.Error.Type {
	case apiservercel.ErrorTypeRequired:
		return field.Required(path, p.Error.Detail)
	case apiservercel.ErrorTypeInvalid:
		return field.Invalid(path, t.Expression, p.Error.Detail)
	default:
		return field.InternalError(path, p.Error)
	}
}
