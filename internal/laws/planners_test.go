package laws

import (
	"go/ast"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// planning reports whether a file holds pure decisions: by its name, or because its whole package does.
func planning(path string) bool {
	name, dir := filepath.Base(path), filepath.ToSlash(filepath.Dir(path))
	return !strings.HasSuffix(name, "_test.go") && (strings.HasPrefix(name, "plan") ||
		strings.HasPrefix(dir, "internal/scheduler/placement") || strings.HasPrefix(dir, "internal/server/fair/queueing") || strings.HasPrefix(dir, "internal/node/lifecycle"))
}

// world is what a planner may not reach, by package; nil means all of it.
var world = map[string][]string{
	"time":                                 {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"},
	"k8s.io/apimachinery/pkg/apis/meta/v1": {"Now", "NowMicro"},
	"os":                                   nil,
	"os/exec":                              nil,
	"net":                                  nil,
	"net/http":                             nil,
	"context":                              nil,
	"math/rand":                            nil,
	module + "internal/client":             {"Client", "Get", "List", "Watch", "Mutate", "Create", "Update", "Follow"},
}

// TestPlannersArePure follows every function that a planner uses through the whole product: a clock that is read three calls away is
// still a clock.
func TestPlannersArePure(t *testing.T) {
	p := typed(t)
	bodies := functions(p)
	planners := 0
	for _, pkg := range p.packages {
		for _, file := range pkg.Syntax {
			if !planning(relative(p.fset.Position(file.Pos()).Filename)) {
				continue
			}
			planners++
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok {
					w := walk{t: t, program: p, bodies: bodies, seen: map[*types.Func]bool{}}
					w.through(pkg, f, nil)
				}
			}
		}
	}
	if planners < 30 {
		t.Errorf("only %d files of planners found; are they still named plan*.go?", planners)
	}
}

// body is a function with the package that it stands in.
type body struct {
	pkg *packages.Package
	fn  *ast.FuncDecl
}

// functions are all functions of the product by what refers to them.
func functions(p *program) map[string]body {
	out := map[string]body{}
	for _, pkg := range p.packages {
		for _, file := range pkg.Syntax {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
					if o, ok := pkg.TypesInfo.Defs[f.Name].(*types.Func); ok {
						out[o.FullName()] = body{pkg, f}
					}
				}
			}
		}
	}
	return out
}

// walk is one walk through what a planner's function uses.
type walk struct {
	t       *testing.T
	program *program
	bodies  map[string]body
	seen    map[*types.Func]bool
}

func (w *walk) through(pkg *packages.Package, f *ast.FuncDecl, path []string) {
	path = append(slices.Clone(path), w.program.at(f.Pos())+" "+f.Name.Name)
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			w.t.Errorf("%s: a planner starts no goroutine (reached by %s)", w.program.at(n.Pos()), strings.Join(path, " > "))
		case *ast.Ident:
			w.uses(pkg, n, path)
		}
		return true
	})
}

// uses judges one name that is used on the way, and goes on into functions of the product.
func (w *walk) uses(pkg *packages.Package, id *ast.Ident, path []string) {
	o := pkg.TypesInfo.Uses[id]
	if o == nil || o.Pkg() == nil {
		return
	}
	names, watched := world[o.Pkg().Path()]
	if method, ok := o.(*types.Func); ok && method.Signature().Recv() != nil {
		watched = false // of a value that was given
	}
	if _, field := o.(*types.Var); field {
		watched = false
	}
	if _, constant := o.(*types.Const); constant {
		watched = false
	}
	if watched && (names == nil || slices.Contains(names, o.Name())) {
		w.t.Errorf("%s uses %s.%s: a planner decides from what it is given (reached by %s)", w.program.at(id.Pos()), o.Pkg().Path(), o.Name(), strings.Join(path, " > "))
		return
	}
	fn, ok := o.(*types.Func)
	if !ok || w.seen[fn.Origin()] {
		return
	}
	w.seen[fn.Origin()] = true
	if b, ok := w.bodies[fn.Origin().FullName()]; ok {
		w.through(b.pkg, b.fn, path)
	}
}

// TestPlannersTakeData: what a planner is told is values. A function among its inputs could read anything.
func TestPlannersTakeData(t *testing.T) {
	p := typed(t)
	for _, pkg := range p.packages {
		for _, file := range pkg.Syntax {
			path := relative(p.fset.Position(file.Pos()).Filename)
			if !strings.HasPrefix(filepath.Base(path), "plan") || strings.HasSuffix(path, "_test.go") {
				continue
			}
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || !strings.HasPrefix(strings.ToLower(f.Name.Name), "plan") {
					continue
				}
				params := pkg.TypesInfo.Defs[f.Name].(*types.Func).Signature().Params()
				for i := range params.Len() {
					if at := function(params.At(i).Type(), 0); at != "" {
						broken(t, "%s: %s of %s has %s: pass what it would return", p.at(f.Pos()), params.At(i).Name(), f.Name.Name, at)
					}
				}
			}
		}
	}
}

// function names a function within a type of an input, or is empty: itself, or a field of a struct of the product.
func function(typ types.Type, depth int) string {
	if depth > 3 {
		return ""
	}
	switch u := types.Unalias(typ).Underlying().(type) {
	case *types.Signature:
		return "a function"
	case *types.Pointer:
		return function(u.Elem(), depth)
	case *types.Slice:
		return function(u.Elem(), depth)
	case *types.Map:
		return function(u.Elem(), depth)
	case *types.Struct:
		named, ok := types.Unalias(typ).(*types.Named)
		if ok && (named.Obj().Pkg() == nil || !strings.HasPrefix(named.Obj().Pkg().Path(), module)) {
			return ""
		}
		for i := range u.NumFields() {
			if at := function(u.Field(i).Type(), depth+1); at != "" {
				return at + " in field " + u.Field(i).Name()
			}
		}
	}
	return ""
}
