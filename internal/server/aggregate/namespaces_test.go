package aggregate

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

// What another server holds in a namespace is deleted with it; where it does not answer, that is said.
func TestNamespacesAreEmptied(t *testing.T) {
	s := start(t)
	var mu sync.Mutex
	held, asked := `{"metadata":{"name":"cod"}},{"metadata":{"name":"eel","finalizers":["sea/hold"]}}`, []string{}
	s.register(s.backend(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/apis":
			w.Header().Set("Content-Type", acceptAll)
			fmt.Fprint(w, `{"items":[{"metadata":{"name":"fish.example.com"},"versions":[{"version":"v1","resources":[
				{"resource":"fishes","scope":"Namespaced","verbs":["list","delete","deletecollection"]},
				{"resource":"seas","scope":"Cluster","verbs":["list","delete"]},
				{"resource":"views","scope":"Namespaced","verbs":["list"]}]}]}]}`)
		case strings.HasPrefix(r.URL.Path, "/openapi"):
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodGet:
			fmt.Fprintf(w, `{"items":[%s]}`, held)
		default:
			asked = append(asked, fmt.Sprintf("%s %s as %s", r.Method, r.URL, r.Header.Get("X-Remote-User")))
			held = `{"metadata":{"name":"eel","finalizers":["sea/hold"]}}`
		}
	}), true)
	s.eventually("it is discovered", func() bool { return len(s.a.Seen().Discovery[0].Served.Resources) == 3 })
	who := &user.DefaultInfo{Name: "cleaner"}
	left := s.a.Empty(t.Context(), who, "bay")
	if len(left.Errs)+len(left.Undiscovered) > 0 || left.Objects["fishes.fish.example.com"] != 1 || left.Finalizers["sea/hold"] != 1 {
		t.Errorf("%+v", left)
	}
	mu.Lock()
	if len(asked) != 1 || asked[0] != "DELETE /apis/fish.example.com/v1/namespaces/bay/fishes?propagationPolicy=Background as cleaner" {
		t.Errorf("asked %q", asked)
	}
	held = ""
	mu.Unlock()
	if left := s.a.Empty(t.Context(), who, "bay"); len(left.Objects) > 0 || len(left.Errs) > 0 {
		t.Errorf("%+v", left)
	}
	s.say("v1.fish.example.com", false)
	s.eventually("it is not available", func() bool { return !s.a.all()[0].available })
	if left := s.a.Empty(t.Context(), who, "bay"); fmt.Sprint(left.Undiscovered) != "[fish.example.com/v1]" {
		t.Errorf("%+v", left)
	}
}
