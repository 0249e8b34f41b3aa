package laws

import (
	"go/ast"
	"go/types"
	"strings"
	"testing"
)

// forTests are packages that exist for tests.
var forTests = []string{"clienttest", "controllertest", "runtimetest", "nettest", "nfttest", "testing"}

// TestExportedNamesAreUsed: an exported name that only tests use is a rule that the product does not follow, or dead.
func TestExportedNamesAreUsed(t *testing.T) {
	p := typed(t)
	used := map[string]bool{}
	for _, pkg := range p.packages {
		for id, o := range pkg.TypesInfo.Uses {
			if file := relative(p.fset.Position(id.Pos()).Filename); !strings.HasSuffix(file, "_test.go") {
				used[name(o)] = true
			}
		}
		for _, s := range pkg.TypesInfo.Selections {
			used[name(s.Obj())] = true
		}
	}
	for _, pkg := range p.packages {
		if !strings.HasPrefix(pkg.PkgPath, module+"internal/") || forTesting(pkg.PkgPath) {
			continue
		}
		for _, file := range pkg.Syntax {
			for _, d := range file.Decls {
				for _, id := range declared(d) {
					o := pkg.TypesInfo.Defs[id]
					if o == nil || !id.IsExported() || used[name(o)] || implements(o) {
						continue
					}
					broken(t, "%s: nothing of the product uses %s.%s: use it, unexport it or delete it", p.at(id.Pos()), pkg.Name, id.Name)
				}
			}
		}
	}
}

func forTesting(path string) bool {
	for _, f := range forTests {
		if strings.HasSuffix(path, f) {
			return true
		}
	}
	return false
}

// name is what an object is called in the whole product, whichever variant of its package it was loaded from.
func name(o types.Object) string {
	if o == nil || o.Pkg() == nil {
		return ""
	}
	if f, ok := o.(*types.Func); ok {
		return f.Origin().FullName()
	}
	if v, ok := o.(*types.Var); ok && v.IsField() {
		return o.Pkg().Path() + ".field." + v.Name()
	}
	return o.Pkg().Path() + "." + o.Name()
}

// declared are the names that a declaration introduces at the top: functions and methods, types, fields, variables and constants.
func declared(d ast.Decl) []*ast.Ident {
	switch d := d.(type) {
	case *ast.FuncDecl:
		return []*ast.Ident{d.Name}
	case *ast.GenDecl:
		var out []*ast.Ident
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				out = append(out, s.Name)
				if st, ok := s.Type.(*ast.StructType); ok {
					for _, f := range st.Fields.List {
						if f.Tag == nil { // a tag names a field to others
							out = append(out, f.Names...)
						}
					}
				}
			case *ast.ValueSpec:
				out = append(out, s.Names...)
			}
		}
		return out
	}
	return nil
}

// implements reports whether a method may be called through an interface, of which nothing here can say whether it is.
func implements(o types.Object) bool {
	f, ok := o.(*types.Func)
	return ok && f.Signature().Recv() != nil
}
