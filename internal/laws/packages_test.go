package laws

import (
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestEveryPackageSaysWhatItHolds(t *testing.T) {
	said, seen := map[string]bool{}, map[string]bool{}
	for _, s := range allSources(t) {
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
	for _, s := range allSources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init runs before anyone asked; call it from where it is needed", s.at(f))
			}
		}
	}
}

// Sizes that stay readable.
const (
	maxFile     = 400  // lines
	maxFunction = 60   // lines
	maxPackage  = 3000 // lines without tests
	maxFolder   = 40   // files without tests
)

func TestSizes(t *testing.T) {
	lines, files := map[string]int{}, map[string]int{}
	for _, s := range allSources(t) {
		if s.test {
			continue
		}
		lines[s.dir] += s.lines
		files[s.dir]++
		if s.lines > maxFile {
			broken(t, "%s has %d lines: two ideas in one place?", s.path, s.lines)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1; n > maxFunction {
				broken(t, "%s: %s has %d lines: name its steps", s.at(f), f.Name.Name, n)
			}
		}
	}
	for dir, n := range lines {
		if n > maxPackage || files[dir] > maxFolder {
			broken(t, "%s has %d lines in %d files: a package is for one idea", dir, n, files[dir])
		}
	}
}

// nameless are names that say nothing of what a package holds.
var nameless = []string{"util", "utils", "common", "helpers", "helper", "misc", "types", "base", "shared", "lib", "pkg"}

func TestPackagesAreNamedForWhatTheyHold(t *testing.T) {
	for _, s := range allSources(t) {
		name := strings.TrimSuffix(s.file.Name.Name, "_test")
		for _, bad := range nameless {
			if name == bad || strings.HasSuffix(s.dir, "/"+bad) {
				t.Errorf("%s: package %s says nothing of what it holds; a helper lives with its user", s.path, name)
			}
		}
	}
}

// TestStorageKeysAreMadeInOnePlace: how objects are laid out below the store is known to api and store alone.
func TestStorageKeysAreMadeInOnePlace(t *testing.T) {
	for _, s := range allSources(t) {
		if s.test || strings.HasPrefix(s.dir, "internal/api") || strings.HasPrefix(s.dir, "internal/store") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if b, ok := n.(*ast.BasicLit); ok && strings.Contains(b.Value, "/registry/") {
				broken(t, "%s: a key of the store is made by api.Resource or internal/store", s.at(b))
			}
			return true
		})
	}
}

// TestPromisesNameTheirTests: what a package comment says must stay true is kept by tests, which it names.
func TestPromisesNameTheirTests(t *testing.T) {
	there, named := map[string]bool{}, regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z]\w+`)
	for _, root := range []string{"../../cmd", "../../internal", "../../test"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?m)^func (\w+)\(`).FindAllStringSubmatch(string(text), -1) {
				there[m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range allSources(t) {
		if s.test || s.file.Doc == nil {
			continue
		}
		_, promise, ok := strings.Cut(s.file.Doc.Text(), "must stay true")
		if !ok {
			continue
		}
		tests := named.FindAllString(promise, -1)
		if len(tests) == 0 {
			t.Errorf("%s: the package comment names no test that keeps what must stay true", s.at(s.file))
		}
		for _, name := range tests {
			if !there[name] {
				t.Errorf("%s: the package comment names %s, which is not there", s.at(s.file), name)
			}
		}
	}
}
