package server

import "testing"

// FuzzParse looks for paths that make the parser panic, or that resolve to what is not there.
func FuzzParse(f *testing.F) {
	for _, p := range []string{"/api/v1/namespaces//pods", "//", "/apis///", "/api/v1/watch", "/api/v1/namespaces/a/b/c/d/e/f", "/api/v1/namespaces/status/status"} {
		f.Add("GET", p)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		x := parse(method, path, nil)
		if !x.IsResource {
			return
		}
		if err := x.resolve(); (err == nil) != (x.Res != nil) {
			t.Errorf("%s %s: %v, resource %v", method, path, err, x.Res)
		}
	})
}
