package laws

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/knarr-io/knarr/"

// rooms are the packages below internal/, top to bottom: each may import those that stand after it. Rooms in one line are
// neighbours and do not import each other.
var rooms = [][]string{
	{"cli"},
	{"ui"},
	{"why"},
	{"simulate"},
	{"machine"},
	{"controlplane"},
	{"cluster"},
	{"mesh", "gateway"},
	{"network", "dns"},
	{"node"},
	{"scheduler"},
	{"controller"},
	{"client"},
	{"server"},
	{"api"},
	{"store"},
	{"pki"},
	{"image"},
	{"laws"},
}

// forbidden are packages that a room may not import from elsewhere, with the rooms that may.
var forbidden = []struct{ prefix, allowed, why string }{
	{"k8s.io/kubernetes/", "internal/api", "upstream's packages are confined to internal/api (docs/adr/0001)"},
	{"k8s.io/apiserver/pkg/server", "-", "the generic API server is not part of Knarr"},
	{"k8s.io/apiserver/pkg/registry", "-", "the generic API server is not part of Knarr"},
	{"k8s.io/client-go/informers", "-", "nobody keeps an informer cache of their own (internal/client)"},
	{"k8s.io/kubernetes/pkg/registry", "-", "strategies are Knarr's own"},
}

// source is one Go file, parsed.
type source struct {
	path string // from the repository's root
	dir  string
	test bool
	file *ast.File
	fset *token.FileSet
}

func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var out []source
	for _, top := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			out = append(out, source{path: filepath.ToSlash(rel), dir: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(path, "_test.go"), file: f, fset: fset})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 50 {
		t.Fatalf("only %d Go files found; is the test run from its own directory?", len(out))
	}
	return out
}

func (s source) imports() []string {
	var out []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err == nil {
			out = append(out, p)
		}
	}
	return out
}

func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

// rank is a room's place from the top, or -1.
func rank(dir string) (int, string) {
	rest, ok := strings.CutPrefix(dir, "internal/")
	if !ok {
		return -1, ""
	}
	room, _, _ := strings.Cut(rest, "/")
	for i, line := range rooms {
		if slices.Contains(line, room) {
			return i, room
		}
	}
	return -1, room
}

func TestImportsPointDown(t *testing.T) {
	for _, s := range sources(t) {
		from, room := rank(s.dir)
		if from < 0 && strings.HasPrefix(s.dir, "internal/") {
			t.Errorf("%s: room %q has no place in the house: add it to rooms in internal/laws and to docs/architecture.md", s.path, room)
			continue
		}
		for _, imp := range s.imports() {
			for _, f := range forbidden {
				if strings.HasPrefix(imp, f.prefix) && !strings.HasPrefix(s.dir, f.allowed) {
					t.Errorf("%s imports %s: %s", s.path, imp, f.why)
				}
			}
			target, ok := strings.CutPrefix(imp, module)
			if !ok || from < 0 {
				continue
			}
			if strings.HasPrefix(target, "cmd/") {
				t.Errorf("%s imports %s: nothing imports the composition root", s.path, imp)
				continue
			}
			// Tests may use the memory-backed client to exercise a package through the front door.
			if s.test && strings.HasPrefix(target, "internal/client") {
				continue
			}
			if to, toRoom := rank(target); to < from || to == from && toRoom != room {
				t.Errorf("%s imports %s: %s stands above or beside %s; imports point down", s.path, imp, toRoom, room)
			}
		}
	}
}

func TestEveryPackageSaysWhatItHolds(t *testing.T) {
	said, seen := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		seen[s.dir] = true
		if s.file.Doc != nil && len(strings.TrimSpace(s.file.Doc.Text())) > 40 {
			said[s.dir] = true
		}
	}
	for dir := range seen {
		if !said[dir] {
			t.Errorf("%s has no package comment: say what it holds, what flows through it and what must stay true", dir)
		}
	}
}

func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init runs before anyone asked; call it from where it is needed", s.at(f))
			}
		}
	}
}

// planner tells whether a file holds pure decisions: by its name, or its whole package by being one.
func planner(s source) bool {
	name := filepath.Base(s.path)
	return !s.test && (strings.HasPrefix(name, "plan") || strings.HasPrefix(s.dir, "internal/scheduler/placement") || strings.HasPrefix(s.dir, "internal/node/lifecycle"))
}

func TestPlannersArePure(t *testing.T) {
	impure := map[string]string{
		"os": "", "net": "", "net/http": "", "os/exec": "", "context": "",
	}
	found := 0
	for _, s := range sources(t) {
		if !planner(s) {
			continue
		}
		found++
		for _, imp := range s.imports() {
			if _, bad := impure[imp]; bad {
				t.Errorf("%s imports %s: a planner decides from what it is given and does nothing", s.path, imp)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a planner starts no goroutine", s.at(n))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "NewTimer"}, n.Sel.Name) {
					t.Errorf("%s: a planner has no clock; pass the time in", s.at(n))
				}
			}
			return true
		})
	}
	if found < 4 {
		t.Errorf("only %d planners found; are they still named plan*.go?", found)
	}
}

// TestOneWriterPerField reads the Writes of every controller.Controller literal.
func TestOneWriterPerField(t *testing.T) {
	owner := map[string]string{}
	controllers := 0
	for _, s := range sources(t) {
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
