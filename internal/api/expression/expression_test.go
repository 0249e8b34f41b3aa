package expression

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
)

func TestCompilingSaysWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		text *Text
		d    Declared
		want string // part of the error; empty where there is none
	}{
		{Condition("a", "object.metadata.name == 'x'"), Declared{}, ""},
		{Condition("a", "object.metadata.name"), Declared{}, "must evaluate to bool but got dyn"},
		{Condition("a", "'x'"), Declared{}, "must evaluate to bool"},
		{Condition("a", "object.spec +"), Declared{}, "compilation failed: ERROR: <input>:1:14: Syntax error"},
		{Condition("a", "params.max > 3"), Declared{}, "undeclared reference to 'params'"},
		{Condition("a", "params.max > 3"), Declared{HasParams: true}, ""},
		{Condition("a", "authorizer.group('').resource('pods').check('get').allowed()"), Declared{}, "undeclared reference to 'authorizer'"},
		{Condition("a", "authorizer.group('').resource('pods').check('get').allowed()"), Declared{HasAuthorizer: true}, ""},
		{Condition("a", "request.userInfo.username == 'me' && request.operation == 'CREATE'"), Declared{}, ""},
		{Condition("a", "request.nonsense == 'me'"), Declared{}, "undefined field 'nonsense'"},
		{Condition("a", "namespaceObject.metadata.labels['a'] == 'b'"), Declared{}, ""},
		{Condition("a", "variables.x"), Declared{}, "undeclared reference to 'variables'"},
		{Message("'no ' + object.metadata.name"), Declared{}, ""},
		{Message("1"), Declared{}, "must evaluate to string but got int"},
		{Annotation("a", "null"), Declared{}, ""},
		{Annotation("a", "1"), Declared{}, "must evaluate to one of [string null_type] but got int"},
		{Configuration("Object{spec: Object.spec{replicas: 1}}"), Declared{HasPatchTypes: true}, ""},
		{Configuration("1"), Declared{HasPatchTypes: true}, "must evaluate to Object but got int"},
		{Patch("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"), Declared{HasPatchTypes: true}, ""},
		{Patch("[1]"), Declared{HasPatchTypes: true}, "must evaluate to list(JSONPatch) but got list(int)"},
	} {
		err := Check(field.NewPath("here"), tc.text, NewCompiler().Compile(tc.text, tc.d, environment.NewExpressions))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.text.Expression, err, tc.want)
		}
	}
}

func TestVariablesAreTyped(t *testing.T) {
	c, err := NewComposingCompiler()
	if err != nil {
		t.Fatal(err)
	}
	d := Declared{HasAuthorizer: true}
	if p := c.Variable(Variable("count", "size(object.spec.containers)"), d, environment.NewExpressions); p.Error != nil {
		t.Fatal(p.Error)
	}
	if p := c.Variable(Variable("many", "variables.count > 3"), d, environment.NewExpressions); p.Error != nil {
		t.Fatal(p.Error)
	}
	if p := c.Compile(Condition("", "!variables.many"), d, environment.NewExpressions); p.Error != nil {
		t.Error(p.Error)
	}
	if p := c.Compile(Condition("", "variables.count == 'x'"), d, environment.NewExpressions); p.Error == nil || !strings.Contains(p.Error.Detail, "found no matching overload") {
		t.Errorf("an int compared with a string: %v", p.Error)
	}
	if p := c.Compile(Condition("", "variables.later"), d, environment.NewExpressions); p.Error == nil || !strings.Contains(p.Error.Detail, "undefined field 'later'") {
		t.Errorf("a variable that is not there: %v", p.Error)
	}
	if c.Scope() == nil || NewCompiler().Scope() != nil {
		t.Error("only a compiler of variables has a scope of them")
	}
	if p := NewCompiler().Variable(Variable("a", "1"), d, environment.NewExpressions); p.Error == nil {
		t.Error("a variable was compiled where none can be named")
	}
}
