package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// telling is a node that tells about itself.
type telling struct {
	node
	name string
}

func (n telling) ServeNode(w http.ResponseWriter, r *http.Request) {
	defer func() {
		// As the connection of another machine's agent does (agentlink).
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	switch r.URL.Path {
	case "/usage/node":
		fmt.Fprintf(w, `{"metadata":{"name":%q},"timestamp":"2026-03-04T12:00:00Z","window":"10s","usage":{"cpu":"1500m","memory":"3Mi"}}`, n.name)
	case "/usage/pods":
		fmt.Fprint(w, `{"items":[`)
		for i, pod := range []string{"a", "stranger"} {
			fmt.Fprintf(w, `%s{"metadata":{"namespace":"default","name":%q},"timestamp":"2026-03-04T12:00:00Z","window":"10s",
				"containers":[{"name":"c","usage":{"cpu":"250m","memory":"1Mi"}},{"name":"d","usage":{"cpu":"50m","memory":"1Mi"}}]}`, ","[:i], pod)
		}
		fmt.Fprint(w, `]}`)
	case "/logs":
		http.Redirect(w, r, "/logs/", http.StatusTemporaryRedirect)
	case "/healthz", "/stats/summary", "/logs/":
		fmt.Fprint(w, n.name, " ", r.URL.String(), " ", r.Header.Get("Authorization"))
	default:
		http.NotFound(w, r)
	}
}

// narrow allows a user to read one subresource of nodes.
type narrow struct{}

func (narrow) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.User.GetName() == "scraper" && a.Resource == "nodes" && a.Subresource == "stats" && a.Verb == "get" && a.Name == "n1" {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

// startTelling starts a server with the nodes n1, which tells about itself, and n2, which is away; pod "a" runs on n1.
func startTelling(t *testing.T) *fixture {
	f := start(t, func(c *server.Config) {
		c.Authorizer = authz.Union{authz.Masters{}, narrow{}}
		c.Streams = func(_ context.Context, name string) (server.Streams, error) {
			if name != "n1" {
				return nil, errors.New("away")
			}
			return telling{name: name}, nil
		}
	})
	for _, n := range []string{"n1", "n2"} {
		f.must("POST", "/api/v1/nodes", fmt.Sprintf(`{"kind":"Node","apiVersion":"v1","metadata":{"name":%q,"labels":{"disk":%q}}}`, n, n))
	}
	f.must("POST", "/api/v1/namespaces/default/pods", strings.Replace(pod, `"spec":{`, `"spec":{"nodeName":"n1",`, 1))
	f.must("PATCH", "/api/v1/namespaces/default/pods/a/status", `{"status":{"phase":"Running"}}`, "Content-Type", "application/merge-patch+json")
	return f
}

func TestNodeProxy(t *testing.T) {
	f := startTelling(t)
	for _, test := range []struct {
		user, path string
		code       int
		want       string
	}{
		{"", "/api/v1/nodes/n1/proxy/healthz", 200, "n1 /healthz "},
		{"", "/api/v1/nodes/n1:10250/proxy/stats/summary?only_cpu_and_memory=true", 200, "n1 /stats/summary?only_cpu_and_memory=true "},
		{"", "/api/v1/nodes/n1/proxy/logs/", 200, "n1 /logs/ "},
		{"", "/api/v1/nodes/n1:22/proxy/healthz", 400, "no other port"},
		{"", "/api/v1/nodes/n1/proxy/nothing", 404, "not found"},
		{"", "/api/v1/nodes/n3/proxy/healthz", 404, `nodes \"n3\" not found`},
		{"", "/api/v1/nodes/n2/proxy/healthz", 500, "away"},
		// nodes/stats is enough for statistics, and for nothing else (KEP-2862).
		{"scraper", "/api/v1/nodes/n1/proxy/stats/summary", 200, "n1 /stats/summary"},
		{"scraper", "/api/v1/nodes/n1:10250/proxy/stats/summary", 200, "n1 /stats/summary"},
		{"scraper", "/api/v1/nodes/n1/proxy/healthz", 403, `cannot get resource \"nodes/proxy\"`},
		{"scraper", "/api/v1/nodes/n2/proxy/stats/summary", 403, "forbidden"},
	} {
		var headers []string
		if test.user != "" {
			headers = []string{"X-User", test.user}
		}
		if a := f.do("GET", test.path, "", append(headers, "Authorization", "Bearer secret")...); a.Code != test.code || !strings.Contains(a.Body, test.want) || strings.Contains(a.Body, "secret") {
			t.Errorf("%s GET %s: %d %q; want %d with %q", test.user, test.path, a.Code, a.Body, test.code, test.want)
		}
	}
	f.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if a := f.do("GET", "/api/v1/nodes/n1/proxy/logs", ""); a.Code != 307 || a.Header.Get("Location") != "/api/v1/nodes/n1/proxy/logs/" {
		t.Errorf("a redirect of the node: %d to %q", a.Code, a.Header.Get("Location"))
	}
	if a := f.do("POST", "/api/v1/nodes/n1/proxy/healthz", "{}"); a.Code != 405 {
		t.Errorf("POST: %d %s", a.Code, a.Body)
	}
}

func TestUsage(t *testing.T) {
	f := startTelling(t)
	const base = "/apis/metrics.k8s.io/v1beta1"
	table := "application/json;as=Table;v=v1;g=meta.k8s.io"
	for _, test := range []struct {
		path, accept string
		code         int
		want, not    string
	}{
		{base + "/nodes", "", 200, `"kind":"NodeMetricsList"`, `"n2"`},
		{base + "/nodes", "", 200, `"labels":{"disk":"n1"}`, ""},
		{base + "/nodes?labelSelector=disk%3Dn2", "", 200, `"items":[]`, ""},
		{base + "/nodes/n1", "", 200, `"usage":{"cpu":"1500m","memory":"3Mi"}`, ""},
		{base + "/nodes/n2", "", 404, `nodes.metrics.k8s.io \"n2\" not found`, ""},
		{base + "/nodes", table, 200, `"cells":["n1","1500m","3Mi","10s"]`, ""},
		{base + "/pods", "", 200, `"name":"a"`, "stranger"},
		{base + "/namespaces/default/pods", table, 200, `"cells":["a","300m","2Mi","10s"]`, "stranger"},
		{base + "/namespaces/default/pods/a", "", 200, `"kind":"PodMetrics"`, "stranger"},
		{base + "/namespaces/default/pods?fieldSelector=metadata.name%3Dz", "", 200, `"items":[]`, ""},
		{base + "/namespaces/default/pods/stranger", "", 404, "not found", ""},
		{base + "/namespaces/other/pods", "", 200, `"items":[]`, ""},
		{base + "/namespaces/default/nodes", "", 404, "could not find", ""},
		{base + "/widgets", "", 404, "could not find", ""},
		{"/apis/metrics.k8s.io/v1/nodes", "", 404, "could not find", ""},
		{base + "/pods?labelSelector=%3D%3D", "", 400, "labelSelector", ""},
		{base, "", 200, `"singularName":"","namespaced":true,"kind":"PodMetrics","verbs":["get","list"]`, ""},
		{"/apis", "", 200, `"name":"metrics.k8s.io"`, ""},
	} {
		var headers []string
		if test.accept != "" {
			headers = []string{"Accept", test.accept}
		}
		a := f.do("GET", test.path, "", headers...)
		if a.Code != test.code || !strings.Contains(a.Body, test.want) || (test.not != "" && strings.Contains(a.Body, test.not)) {
			t.Errorf("GET %s: %d %s; want %d with %q and without %q", test.path, a.Code, a.Body, test.code, test.want, test.not)
		}
	}
	if a := f.do("DELETE", base+"/nodes/n1", ""); a.Code != 405 {
		t.Errorf("DELETE: %d %s", a.Code, a.Body)
	}
	if a := f.do("GET", base+"/nodes", "", "X-User", "somebody"); a.Code != 403 {
		t.Errorf("somebody: %d", a.Code)
	}
}

// A node whose connection breaks in the middle of its answer costs nobody but itself.
func TestUsageOfANodeThatBreaksOff(t *testing.T) {
	f := start(t, func(c *server.Config) {
		c.Streams = func(context.Context, string) (server.Streams, error) { return breaking{}, nil }
	})
	f.must("POST", "/api/v1/nodes", `{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1"}}`)
	if a := f.do("GET", "/apis/metrics.k8s.io/v1beta1/nodes", ""); a.Code != 200 || !strings.Contains(a.Body, `"items":[]`) {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

type breaking struct{ node }

func (breaking) ServeNode(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
