package verbs

import (
	"testing"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
)

// FuzzParse looks for paths that make the parser panic, or that resolve to what is not there.
func FuzzParse(f *testing.F) {
	for _, p := range []string{"/api/v1/namespaces//pods", "//", "/apis///", "/api/v1/watch", "/api/v1/namespaces/a/b/c/d/e/f", "/api/v1/namespaces/status/status"} {
		f.Add("GET", p)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		x := call.Parse(method, path, nil)
		if !x.IsResource {
			return
		}
		if err := resolve(api.BuiltinCatalog(), x); (err == nil) != (x.Res != nil) {
			t.Errorf("%s %s: %v, resource %v", method, path, err, x.Res)
		}
	})
}
