package laws

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestNoPackageState: what a package declares at its top does not change after the program's start, so that two control planes fit into
// one process and tests do not see one another. A value that is set by the linker (-X) is a constant to this law.
func TestNoPackageState(t *testing.T) {
	p := typed(t)
	for _, pkg := range p.packages {
		for _, file := range pkg.Syntax {
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || f.Body == nil {
					continue
				}
				ast.Inspect(f.Body, func(n ast.Node) bool {
					for _, changed := range changes(n) {
						if v := packageVariable(pkg, changed); v != nil {
							t.Errorf("%s changes %s.%s: a value that changes belongs into a struct that somebody owns", p.at(changed.Pos()), pkg.Name, v.Name())
						}
					}
					return true
				})
			}
		}
	}
}

// changes are the expressions that a statement writes to.
func changes(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
			return n.Args[:1]
		}
		// A method with a pointer receiver may change what it is called on.
		if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
			return []ast.Expr{&ast.ParenExpr{Lparen: sel.Pos(), X: sel}}
		}
	}
	return nil
}

// packageVariable is the variable of a package's top that an expression changes, or nil.
func packageVariable(pkg *packages.Package, e ast.Expr) *types.Var {
	if p, ok := e.(*ast.ParenExpr); ok {
		sel, ok := p.X.(*ast.SelectorExpr)
		if !ok {
			return nil
		}
		s := pkg.TypesInfo.Selections[sel]
		if s == nil || s.Kind() != types.MethodVal {
			return nil
		}
		fn := s.Obj().(*types.Func)
		if _, pointer := fn.Signature().Recv().Type().(*types.Pointer); !pointer {
			return nil
		}
		if _, pointer := pkg.TypesInfo.TypeOf(sel.X).Underlying().(*types.Pointer); pointer {
			return nil // whoever made what it points to answers for it
		}
		if pooled(pkg.TypesInfo.TypeOf(sel.X)) {
			return nil
		}
		return variable(pkg, sel.X)
	}
	return variable(pkg, e)
}

// pooled reports whether a type's only state is values that are interchangeable.
func pooled(t types.Type) bool {
	n, ok := types.Unalias(t).(*types.Named)
	return ok && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == "sync" && n.Obj().Name() == "Pool"
}

func variable(pkg *packages.Package, e ast.Expr) *types.Var {
	for {
		switch x := e.(type) {
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.SelectorExpr:
			if pkg.TypesInfo.Selections[x] == nil {
				e = x.Sel // a name of another package
				continue
			}
			if _, pointer := pkg.TypesInfo.TypeOf(x.X).Underlying().(*types.Pointer); pointer {
				return nil
			}
			e = x.X
		case *ast.Ident:
			v, ok := pkg.TypesInfo.Uses[x].(*types.Var)
			if ok && v.Pkg() != nil && strings.HasPrefix(v.Pkg().Path()+"/", module) && v.Parent() == v.Pkg().Scope() {
				return v
			}
			return nil
		default:
			return nil
		}
	}
}
