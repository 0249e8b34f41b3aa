package laws

import (
	"go/ast"
	"strconv"
	"strings"
	"testing"
)

// TestOneWriterPerField reads the Writes of every controller.Controller literal.
func TestOneWriterPerField(t *testing.T) {
	owner := map[string]string{}
	controllers := 0
	for _, s := range allSources(t) {
		if s.test || !strings.HasPrefix(s.dir, "internal/controller/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if sel, ok := lit.Type.(*ast.SelectorExpr); !ok || sel.Sel.Name != "Controller" {
				return true
			}
			controllers++
			for _, e := range lit.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok || kv.Key.(*ast.Ident).Name != "Writes" {
					continue
				}
				ast.Inspect(kv.Value, func(n ast.Node) bool {
					b, ok := n.(*ast.BasicLit)
					if !ok {
						return true
					}
					field, err := strconv.Unquote(b.Value)
					if err != nil {
						return true
					}
					// Whole objects ("*created", "*deleted") are acts, not fields.
					if strings.Contains(field, ":*") {
						return true
					}
					if other, taken := owner[field]; taken {
						t.Errorf("%s: %s is written by %s already; two controllers never own the same field", s.at(b), field, other)
					}
					owner[field] = s.dir
					return true
				})
			}
			return true
		})
	}
	if controllers < 8 || len(owner) < 4 {
		t.Errorf("only %d controllers with %d fields found; has their declaration changed its shape?", controllers, len(owner))
	}
}
