package call

import (
	"net/url"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		method, path string
		// verb group version resource/subresource namespace name rest
		want string
	}{
		{"GET", "/api/v1/pods", "list  v1 pods   "},
		{"GET", "/api/v1/pods?watch=true", "watch  v1 pods   "},
		{"GET", "/api/v1/watch/pods", "watch  v1 pods   "},
		{"GET", "/api/v1/namespaces/a/pods/b", "get  v1 pods a b "},
		{"GET", "/api/v1/namespaces/a/pods/b?watch=1", "get  v1 pods a b "},
		{"GET", "/api/v1/watch/namespaces/a/pods/b", "watch  v1 pods a b "},
		{"GET", "/api/v1/namespaces/a/pods/b/log", "get  v1 pods/log a b "},
		{"POST", "/api/v1/namespaces/a/pods/b/proxy/x/y", "create  v1 pods/proxy a b x/y"},
		{"PUT", "/apis/apps/v1/namespaces/a/deployments/b/scale", "update apps v1 deployments/scale a b "},
		{"PATCH", "/apis/apps/v1/namespaces/a/deployments/b", "patch apps v1 deployments a b "},
		{"DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps v1 deployments a  "},
		{"DELETE", "/apis/apps/v1/namespaces/a/deployments/b", "delete apps v1 deployments a b "},
		{"GET", "/api/v1/namespaces", "list  v1 namespaces   "},
		{"GET", "/api/v1/namespaces/a", "get  v1 namespaces a a "},
		{"PUT", "/api/v1/namespaces/a/finalize", "update  v1 namespaces/finalize a a "},
		{"GET", "/api/v1/namespaces/a/status", "get  v1 namespaces/status a a "},
		{"GET", "/api/v1/nodes/a/status", "get  v1 nodes/status  a "},
		{"OPTIONS", "/api/v1/nodes/a", "options  v1 nodes  a "},
		{"GET", "/api/v1", "-"},
		{"GET", "/apis/apps/v1", "-"},
		{"GET", "/", "-"},
		{"GET", "/healthz", "-"},
	} {
		u, err := url.Parse(tc.path)
		if err != nil {
			t.Fatal(err)
		}
		x := Parse(tc.method, u.Path, u.Query())
		got := "-"
		if x.IsResource {
			sub := ""
			if x.Subresource != "" {
				sub = "/" + x.Subresource
			}
			got = x.Verb + " " + x.Group + " " + x.Version + " " + x.Resource + sub + " " + x.Namespace + " " + x.Name + " " + x.Rest
		}
		if got != tc.want {
			t.Errorf("%s %s: got %q, want %q", tc.method, tc.path, got, tc.want)
		}
	}
}
