package laws

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mention is a path in a document: a file or folder of the product between backquotes.
var mention = regexp.MustCompile("`((?:internal|cmd|test|docs|build|examples|web)/[A-Za-z0-9_./-]+)`")

// TestDocumentsNameWhatIsThere: whoever reads how a pod lives can open every file that is named.
func TestDocumentsNameWhatIsThere(t *testing.T) {
	mentions := 0
	for _, pattern := range []string{"docs/*.md", "README.md", "CONTRIBUTING.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range mention.FindAllStringSubmatch(string(text), -1) {
				mentions++
				if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(m[1], "/"))); errors.Is(err, fs.ErrNotExist) {
					broken(t, "%s names %s, which is not there", filepath.ToSlash(strings.TrimPrefix(file, root+string(filepath.Separator))), m[1])
				}
			}
		}
	}
	if mentions < 20 {
		t.Errorf("only %d paths found in the documents", mentions)
	}
}
