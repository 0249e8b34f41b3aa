package laws

import (
	"go/ast"
	"go/types"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// walked are the kinds whose every field is accounted for.
var walked = []any{corev1.Pod{}, corev1.Service{}, corev1.Node{}, corev1.ResourceQuota{}, corev1.Namespace{}}

// apiField is one field of a type of the API: its names in Go and in JSON.
type apiField struct{ typ, field, json string }

// apiFields are the fields of the walked kinds and of everything in them, in the order of types. Metadata is everybody's.
func apiFields() []apiField {
	var out []apiField
	seen := map[reflect.Type]bool{}
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || seen[t] || t.PkgPath() != "k8s.io/api/core/v1" {
			return
		}
		seen[t] = true
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "" && name != "metadata" {
				out = append(out, apiField{t.Name(), f.Name, name})
			}
			visit(f.Type)
		}
	}
	for _, kind := range walked {
		visit(reflect.TypeOf(kind))
	}
	slices.SortStableFunc(out, func(a, b apiField) int { return strings.Compare(a.typ, b.typ) })
	return out
}

// namedFields are the fields of k8s.io/api/core/v1 that the product names somewhere, as TYPE.FIELD. What defaults and validates is upstream's and
// does not count.
func namedFields(p *program) map[string]bool {
	owner := map[*types.Var]string{}
	out := map[string]bool{}
	for _, pkg := range p.packages {
		room := strings.TrimPrefix(pkg.PkgPath, module+"internal/")
		if room == "api" || strings.HasPrefix(room, "cli") || strings.Contains(room, "test") {
			continue
		}
		for _, file := range pkg.Syntax {
			ast.Inspect(file, func(n ast.Node) bool {
				id, ok := n.(*ast.Ident)
				if !ok {
					return true
				}
				v, ok := pkg.TypesInfo.Uses[id].(*types.Var)
				if !ok || !v.IsField() || v.Pkg() == nil || v.Pkg().Path() != "k8s.io/api/core/v1" {
					return true
				}
				if len(owner) == 0 || owner[v] == "" {
					owners(v.Pkg(), owner)
				}
				out[owner[v]+"."+v.Name()] = true
				return true
			})
		}
	}
	return out
}

// owners notes which type each field of a package belongs to.
func owners(pkg *types.Package, into map[*types.Var]string) {
	for _, name := range pkg.Scope().Names() {
		t, ok := pkg.Scope().Lookup(name).(*types.TypeName)
		if !ok {
			continue
		}
		if s, ok := t.Type().Underlying().(*types.Struct); ok {
			for i := range s.NumFields() {
				into[s.Field(i)] = name
			}
		}
	}
}

// TestEveryFieldIsCarriedOutOrExplained: what the API accepts and nothing acts on is listed with what happens then, and nothing else is.
func TestEveryFieldIsCarriedOutOrExplained(t *testing.T) {
	named := namedFields(typed(t))
	entries := readEntries(t, "fields.txt", "elsewhere", "refused", "kept", "no", "never")
	needed := make([]bool, len(entries))
	for _, f := range apiFields() {
		if named[f.typ+"."+f.field] {
			continue
		}
		i := slices.IndexFunc(entries, func(e entry) bool {
			prefix, all := strings.CutSuffix(e.name, "*")
			return e.name == f.typ+"."+f.json || all && strings.HasPrefix(f.typ+"."+f.json, prefix)
		})
		if i < 0 {
			t.Errorf("no code names %s.%s: carry it out, or say in testdata/fields.txt what becomes of it", f.typ, f.json)
			continue
		}
		needed[i] = true
	}
	for i, e := range entries {
		if !needed[i] {
			t.Errorf("testdata/fields.txt explains %s, which is carried out or is no field: delete the line", e.name)
		}
	}
}
