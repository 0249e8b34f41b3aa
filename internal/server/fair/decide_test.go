package fair

import (
	"net/url"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/request"
)

// TestStandardSchemas: where requests belong in a cluster as it begins.
func TestStandardSchemas(t *testing.T) {
	within(t, 600, func(f *fixture) {
		change := func(i *request.Info, change func(i *request.Info)) *request.Info { change(i); return i }
		path := func(p string) func(i *request.Info) {
			return func(i *request.Info) { i.IsResource, i.Path, i.Namespace = false, p, "" }
		}
		lease := func(i *request.Info) { i.Group, i.Resource = "coordination.k8s.io", "leases" }
		account := func(name string) *request.Info {
			return someone("system:serviceaccount:"+name, "system:serviceaccounts")
		}
		for want, of := range map[string]*request.Info{
			"exempt":                       someone("admin", user.SystemPrivilegedGroup),
			"probes":                       change(someone("eve"), path("/readyz")),
			"system-node-high":             heartbeat("n"),
			"system-nodes":                 someone("system:node:n", user.NodesGroup),
			"system-leader-election":       change(account("kube-system:operator"), lease),
			"kube-system-service-accounts": account("kube-system:operator"),
			"service-accounts":             change(account("kube-system-2:operator"), lease),
			"kube-scheduler":               someone(user.KubeScheduler),
			"global-default":               change(someone("eve"), path("/openapi/v3")),
			"catch-all":                    {User: &user.DefaultInfo{Name: "nobody"}, IsResource: true, Verb: "get", Resource: "pods"},
		} {
			if got := f.Classify(of).schema.name; got != want {
				t.Errorf("%s %+v belongs to %s, want %s", of.User.GetName(), of, got, want)
			}
		}
		status := change(someone("system:node:n", user.NodesGroup), func(i *request.Info) { i.Resource, i.Subresource, i.Namespace = "nodes", "status", "" })
		if got := f.Classify(status).schema.level.name; got != "node-high" {
			t.Errorf("a node's status is of level %s", got)
		}
	})
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		url, path string
		want      bool
	}{
		{"*", "/x", true}, {"/healthz", "/healthz", true}, {"/healthz", "/healthzz", false}, {"/healthz", "/healthz/etcd", true},
		{"/apis/*", "/apis/apps", true}, {"/apis/*", "/apis", false}, {"/apis/", "/apis/apps/v1", true}, {"/api", "/apis", false},
	} {
		if got := pathMatches([]string{c.url}, c.path); got != c.want {
			t.Errorf("%s is about %s: %v", c.url, c.path, got)
		}
	}
	rule := &flowcontrolv1.ResourcePolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes/status", "pods"}, ClusterScope: true}
	for sub, want := range map[string]bool{"status": true, "": false, "proxy": false} {
		if got := resourceMatches(rule, &request.Info{Verb: "get", Resource: "nodes", Subresource: sub}); got != want {
			t.Errorf("nodes/%s: %v", sub, got)
		}
	}
	if resourceMatches(rule, &request.Info{Verb: "get", Resource: "pods", Namespace: "a"}) {
		t.Error("a rule without namespaces is about those of one")
	}
}

// known are sizes of ten thousand objects, a thousand in a namespace.
type known struct{}

func (known) Mean(*request.Info) float64 { return 2000 }
func (known) Count(of *request.Info, most int) int {
	if of.Namespace == "" {
		return 10_000
	}
	return min(1000, most)
}

func TestWidth(t *testing.T) {
	for _, c := range []struct {
		verb, namespace, name, query string
		most, want                   int
	}{
		{"get", "a", "x", "", 50, 1},
		{"list", "", "", "", 50, 50},
		{"list", "", "", "", 1000, 100},
		{"list", "a", "", "", 50, 20},
		{"list", "", "", "limit=500", 50, 10},
		{"list", "", "", "limit=500", 4, 4},
		{"list", "", "", "fieldSelector=metadata.name%3Dx", 50, 1},
		{"list", "", "", "fieldSelector=spec.nodeName%3Dx", 50, 1},
		{"list", "", "", "fieldSelector=status.phase%3DRunning", 50, 50},
		{"watch", "", "", "", 50, 50},
		{"watch", "", "", "resourceVersion=0", 50, 50},
		{"watch", "", "", "resourceVersion=17", 50, 1},
		{"watch", "", "", "resourceVersion=17&sendInitialEvents=true", 50, 50},
		{"watch", "", "", "sendInitialEvents=false", 50, 1},
		{"create", "a", "", "", 50, 1},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		of := &request.Info{IsResource: true, Verb: c.verb, Resource: "pods", Namespace: c.namespace, Name: c.name}
		if got := Width(of, q, known{}, c.most); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestRefusals: who is refused waits twice as long each time that many are, up to 32 seconds, and less again when few are.
func TestRefusals(t *testing.T) {
	var r refusals
	var got []int
	for second := range int64(200) {
		n := 0
		for range 100 {
			n = r.add(1000 + second)
		}
		if len(got) == 0 || got[len(got)-1] != n {
			got = append(got, n)
		}
	}
	if len(got) != 6 || got[5] != 32 {
		t.Errorf("while many are refused: %v", got)
	}
	last := 0
	for second := int64(1300); second < 3000; second += 40 {
		last = r.add(second)
	}
	if last != 1 {
		t.Errorf("while few are: %d", last)
	}
}
