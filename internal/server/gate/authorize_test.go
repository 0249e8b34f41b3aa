package gate

import (
	"net/http/httptest"
	"testing"

	"github.com/knarr-io/knarr/internal/server/call"
)

func TestConnectingToAContainerIsCreating(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/namespaces/a/pods/p/exec":                           "create",
		"/api/v1/namespaces/a/pods/p/portforward":                    "create",
		"/api/v1/namespaces/a/pods/p/log":                            "get",
		"/apis/machines.example.com/v1/namespaces/a/consoles/c/exec": "get",
		"/apis/machines.example.com/v1/namespaces/a/consoles":        "list",
	} {
		r := httptest.NewRequest("GET", path, nil)
		c := &call.Call{R: r, Query: r.URL.Query()}
		c.Target = call.Parse(r.Method, r.URL.Path, c.Query)
		if got := attributes(c).Verb; got != want {
			t.Errorf("GET %s needs the right to %s, want %s", path, got, want)
		}
	}
}
