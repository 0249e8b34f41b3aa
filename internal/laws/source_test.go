package laws

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/packages"
)

const module = "github.com/knarr-io/knarr/"

// root is the repository's, from this package's folder.
var root = filepath.Join("..", "..")

// source is one Go file, parsed.
type source struct {
	path  string // from the repository's root
	dir   string
	test  bool
	lines int
	file  *ast.File
	fset  *token.FileSet
}

// sources parses every Go file of the product once.
var sources = sync.OnceValues(func() ([]source, error) {
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
			rel = filepath.ToSlash(rel)
			out = append(out, source{
				path: rel, dir: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(path, "_test.go"),
				lines: fset.File(f.Pos()).LineCount(), file: f, fset: fset,
			})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
})

// allSources are the Go files of cmd and internal, tests included.
func allSources(t *testing.T) []source {
	t.Helper()
	out, err := sources()
	if err != nil {
		t.Fatal(err)
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

// program is the whole product with its tests, type-checked: what a name refers to, whatever it is imported as.
type program struct {
	fset     *token.FileSet
	packages []*packages.Package // of the product, without their test variants
	tests    []*packages.Package // the variants with test files
}

var load = sync.OnceValues(func() (*program, error) {
	fset := token.NewFileSet()
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedForTest,
		Dir:  root, Fset: fset, Tests: true, Env: append(os.Environ(), "CGO_ENABLED=0"), // as the product is built, so that nothing is compiled twice
		BuildFlags: []string{"-tags=no_btrfs,no_devmapper,no_zfs,no_tracing"},
	}, "./cmd/...", "./internal/...")
	if err != nil {
		return nil, err
	}
	p := &program{fset: fset}
	for _, pkg := range pkgs {
		switch {
		case strings.HasSuffix(pkg.PkgPath, ".test"):
		case pkg.ForTest != "":
			p.tests = append(p.tests, pkg)
		default:
			p.packages = append(p.packages, pkg)
		}
	}
	return p, nil
})

// typed returns the type-checked product.
func typed(t *testing.T) *program {
	t.Helper()
	p, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range p.packages {
		for _, e := range pkg.Errors {
			t.Fatalf("type-checking %s: %v", pkg.PkgPath, e)
		}
	}
	if len(p.packages) < 40 {
		t.Fatalf("only %d packages type-checked", len(p.packages))
	}
	return p
}

// at is a place as FILE:LINE from the repository's root.
func (p *program) at(pos token.Pos) string {
	where := p.fset.Position(pos)
	return relative(where.Filename) + ":" + strconv.Itoa(where.Line)
}

// relative is a file's path from the repository's root.
func relative(path string) string {
	abs, err := filepath.Abs(root)
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(abs, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(rel)
}
