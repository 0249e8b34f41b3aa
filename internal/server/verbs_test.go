package server_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
)

const configMaps = "/api/v1/namespaces/default/configmaps"

const pod = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"i"}]}}`

const deployment = `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web"},"spec":{"replicas":1,
"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"i:1","ports":[{"containerPort":80}]}]}}}}`

func TestRefusals(t *testing.T) {
	f := start(t)
	f.must("POST", configMaps, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"there"}}`)
	big := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"big"},"data":{"x":"` + strings.Repeat("y", 10<<20) + `"}}`
	for _, tc := range []struct {
		name, method, path, body string
		headers                  []string
		code                     int
		reason, message          string
	}{
		{"unknown path", "GET", "/nope", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"unknown resource", "GET", "/api/v1/frogs", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"unknown subresource", "GET", configMaps + "/there/status", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"missing object", "GET", configMaps + "/gone", "", nil, 404, "NotFound", `configmaps "gone" not found`},
		{"missing object of a group", "GET", "/apis/apps/v1/namespaces/default/deployments/gone", "", nil, 404, "NotFound", `deployments.apps "gone" not found`},
		{"method", "PUT", configMaps, "{}", nil, 405, "MethodNotAllowed", "not supported"},
		{"post to all namespaces", "POST", "/api/v1/configmaps", "{}", nil, 405, "MethodNotAllowed", "not supported"},
		{"accept", "GET", configMaps, "", []string{"Accept", "text/html"}, 406, "NotAcceptable", "only the following media types are accepted"},
		{"content type", "POST", configMaps, "hello", []string{"Content-Type", "text/plain"}, 415, "UnsupportedMediaType", "application/json"},
		{"patch type", "PATCH", configMaps + "/there", "{}", nil, 415, "UnsupportedMediaType", "application/apply-patch+yaml"},
		{"name taken", "POST", configMaps, `{"metadata":{"name":"there"}}`, nil, 409, "AlreadyExists", `configmaps "there" already exists`},
		{"truncated body", "POST", configMaps, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"na`, nil, 400, "BadRequest", "unexpected end of JSON input"},
		{"no body", "POST", configMaps, "", nil, 400, "BadRequest", "must be of type ConfigMap"},
		{"ten megabytes", "POST", configMaps, big, nil, 413, "RequestEntityTooLarge", "limit is 3145728"},
		{"wrong kind", "POST", configMaps, pod, nil, 400, "BadRequest", `Pod in version "v1" cannot be handled as a ConfigMap`},
		{"wrong version", "POST", configMaps, `{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"x"}}`, nil, 400, "BadRequest", "does not match the expected API version (v1)"},
		{"wrong type of field", "POST", configMaps, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"data":{"a":1}}`, nil, 400, "BadRequest", "cannot unmarshal number into Go struct field ConfigMap.data of type string"},
		{"unknown field", "POST", "/api/v1/namespaces/default/pods?fieldValidation=Strict", strings.Replace(pod, `"spec":{`, `"spec":{"foo":1,`, 1), nil, 400, "BadRequest", `strict decoding error: unknown field "spec.foo"`},
		{"duplicate field", "POST", configMaps + "?fieldValidation=Strict", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","name":"y"}}`, nil, 400, "BadRequest", `duplicate field "metadata.name"`},
		{"other namespace", "POST", configMaps, `{"metadata":{"name":"x","namespace":"kube-system"}}`, nil, 400, "BadRequest", "does not match the namespace sent on the request"},
		{"other name", "PUT", configMaps + "/there", `{"metadata":{"name":"x"}}`, nil, 400, "BadRequest", "the name of the object (x) does not match the name on the URL (there)"},
		{"invalid", "POST", "/api/v1/namespaces/default/pods", strings.Replace(pod, `"image":"i"`, `"image":""`, 1), nil, 422, "Invalid", "spec.containers[0].image: Required value"},
		{"stale", "PUT", configMaps + "/there", `{"metadata":{"name":"there","resourceVersion":"1"}}`, nil, 409, "Conflict", "the object has been modified"},
		{"dry run value", "POST", configMaps + "?dryRun=Some", `{"metadata":{"name":"x"}}`, nil, 422, "Invalid", "dryRun"},
		{"apply without manager", "PATCH", configMaps + "/there", `{}`, []string{"Content-Type", "application/apply-patch+yaml"}, 422, "Invalid", "fieldManager: Required value"},
		{"bad selector", "GET", configMaps + "?labelSelector=a%3D%3D%3Db", "", nil, 400, "BadRequest", "found '='"},
		{"field selector", "GET", configMaps + "?fieldSelector=data.x%3D1", "", nil, 400, "BadRequest", "is not a known field selector"},
		{"json patch test", "PATCH", configMaps + "/there", `[{"op":"test","path":"/metadata/name","value":"x"}]`, []string{"Content-Type", "application/json-patch+json"}, 422, "Invalid", "test"},
		{"bad merge patch", "PATCH", configMaps + "/there", `{"a"`, []string{"Content-Type", "application/merge-patch+json"}, 400, "BadRequest", "not valid JSON"},
		{"patched into nonsense", "PATCH", configMaps + "/there?fieldValidation=Strict", `{"frog":1}`, []string{"Content-Type", "application/merge-patch+json"}, 400, "BadRequest", `unknown field "frog"`},
		{"unauthenticated", "GET", configMaps, "", []string{"X-User", "nobody"}, 401, "Unauthorized", "Unauthorized"},
		{"unauthorized", "GET", configMaps, "", []string{"X-User", "eve"}, 403, "Forbidden", `configmaps is forbidden: User "eve" cannot list resource "configmaps" in API group "" in the namespace "default"`},
		{"unauthorized elsewhere", "GET", "/metrics", "", []string{"X-User", "eve"}, 403, "Forbidden", `User "eve" cannot get path "/metrics"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := f.must("GET", configMaps, "").Body
			a := f.do(tc.method, tc.path, tc.body, tc.headers...)
			reason, message := a.status(t)
			if a.Code != tc.code || reason != tc.reason {
				t.Errorf("got %d %s %q, want %d %s", a.Code, reason, message, tc.code, tc.reason)
			}
			contains(t, message, tc.message)
			var was, is struct{ Items []any }
			if json.Unmarshal([]byte(before), &was) != nil || json.Unmarshal([]byte(f.must("GET", configMaps, "").Body), &is) != nil || len(was.Items) != len(is.Items) {
				t.Errorf("a refused request changed something")
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	f := start(t)
	a := f.must("POST", configMaps, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"frog":"a \"b\""}`)
	if got, want := a.Header.Get("Warning"), `299 - "unknown field \"frog\""`; got != want {
		t.Errorf("got Warning %s, want %s", got, want)
	}
	a = f.must("PATCH", configMaps+"/x", `{"toad":1}`, "Content-Type", "application/merge-patch+json")
	contains(t, a.Header.Get("Warning"), `unknown field \"toad\"`)
	a = f.must("PATCH", configMaps+"/x?fieldValidation=Ignore", `{"toad":1}`, "Content-Type", "application/merge-patch+json")
	if w := a.Header.Get("Warning"); w != "" {
		t.Errorf("warned %s although told to ignore", w)
	}
}

func TestLife(t *testing.T) {
	f := start(t)
	a := f.must("POST", configMaps+"?dryRun=All", `{"metadata":{"name":"x"},"data":{"a":"1"}}`)
	if a.Code != 201 || f.do("GET", configMaps+"/x", "").Code != 404 {
		t.Fatalf("a dry run stored something, or was refused: %d %s", a.Code, a.Body)
	}
	a = f.must("POST", configMaps, `{"metadata":{"generateName":"x-"},"data":{"a":"1"}}`)
	var obj struct {
		Kind, APIVersion string
		Metadata         struct{ Name, Namespace, UID, ResourceVersion string }
	}
	if err := json.Unmarshal([]byte(a.Body), &obj); err != nil {
		t.Fatal(err)
	}
	if a.Code != 201 || obj.Kind != "ConfigMap" || obj.APIVersion != "v1" || len(obj.Metadata.Name) != 7 || obj.Metadata.Namespace != "default" || obj.Metadata.UID == "" {
		t.Fatalf("created %s", a.Body)
	}
	path := configMaps + "/" + obj.Metadata.Name
	a = f.must("PATCH", path, `{"data":{"b":"2"}}`, "Content-Type", "application/strategic-merge-patch+json")
	contains(t, a.Body, `"data":{"a":"1","b":"2"}`)
	a = f.must("PATCH", path, `[{"op":"remove","path":"/data/a"}]`, "Content-Type", "application/json-patch+json")
	contains(t, a.Body, `"data":{"b":"2"}`)
	same := f.must("PATCH", path, `{"data":{"b":"2"}}`, "Content-Type", "application/merge-patch+json")
	if same.Body != a.Body {
		t.Errorf("a patch that changes nothing wrote something:\n%s\n%s", a.Body, same.Body)
	}
	a = f.must("DELETE", path, `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`)
	contains(t, a.Body, `"status":"Success"`)
	if a := f.do("GET", path, ""); a.Code != 404 {
		t.Errorf("still there: %s", a.Body)
	}
	f.must("POST", configMaps, `{"metadata":{"name":"p","labels":{"x":"y"}}}`)
	f.must("POST", configMaps, `{"metadata":{"name":"q"}}`)
	f.must("DELETE", configMaps+"?labelSelector=x%3Dy", "")
	if f.do("GET", configMaps+"/p", "").Code != 404 || f.do("GET", configMaps+"/q", "").Code != 200 {
		t.Error("deletecollection did not delete what was selected, or more")
	}
}

func TestSubresources(t *testing.T) {
	f := start(t)
	deployments := "/apis/apps/v1/namespaces/default/deployments"
	f.must("POST", deployments, deployment)
	a := f.must("GET", deployments+"/web/scale", "")
	contains(t, a.Body, `"kind":"Scale","apiVersion":"autoscaling/v1"`)
	contains(t, a.Body, `"spec":{"replicas":1},"status":{"replicas":0,"selector":"app=web"}`)
	a = f.must("PATCH", deployments+"/web/scale", `{"spec":{"replicas":5}}`, "Content-Type", "application/merge-patch+json")
	contains(t, a.Body, `"replicas":5`)
	contains(t, f.must("GET", deployments+"/web", "").Body, `"replicas":5`)
	a = f.do("PUT", deployments+"/web/scale", `{"metadata":{"name":"web"},"spec":{"replicas":-1}}`)
	if _, m := a.status(t); a.Code != 422 || !strings.Contains(m, "spec.replicas") {
		t.Errorf("negative replicas: %d %s", a.Code, m)
	}
	f.must("PATCH", deployments+"/web/status", `{"spec":{"replicas":9},"status":{"replicas":3}}`, "Content-Type", "application/merge-patch+json")
	a = f.must("GET", deployments+"/web", "")
	contains(t, a.Body, `"replicas":5`)
	contains(t, a.Body, `"status":{"replicas":3`)

	f.must("POST", "/api/v1/namespaces/default/pods", pod)
	a = f.must("POST", "/api/v1/namespaces/default/pods/a/binding", `{"kind":"Binding","apiVersion":"v1","metadata":{"name":"a"},"target":{"kind":"Node","name":"n1"}}`)
	contains(t, a.Body, `"status":"Success"`)
	contains(t, f.must("GET", "/api/v1/namespaces/default/pods/a", "").Body, `"nodeName":"n1"`)
	a = f.do("POST", "/api/v1/namespaces/default/pods/a/binding", `{"metadata":{"name":"a"},"target":{"kind":"Node","name":"n2"}}`)
	if _, m := a.status(t); a.Code != 409 || !strings.Contains(m, "already assigned") {
		t.Errorf("bound twice: %d %s", a.Code, m)
	}
}

func TestEviction(t *testing.T) {
	f := start(t)
	pods := "/api/v1/namespaces/default/pods"
	f.must("POST", pods, pod)
	f.must("PATCH", pods+"/a/status", `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, "Content-Type", "application/merge-patch+json")
	budgets := "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
	f.must("POST", budgets, `{"metadata":{"name":"b"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"x"}}}}`)
	evict := func() answer {
		return f.do("POST", pods+"/a/eviction", `{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"a"}}`)
	}
	a := evict()
	if reason, m := a.status(t); a.Code != 429 || reason != "TooManyRequests" || !strings.Contains(m, "disruption budget") {
		t.Fatalf("a budget without a free disruption let the pod go: %d %s", a.Code, a.Body)
	}
	contains(t, a.Body, "DisruptionBudget")
	f.must("PATCH", budgets+"/b/status", `{"status":{"observedGeneration":1,"disruptionsAllowed":1,"currentHealthy":2,"desiredHealthy":1,"expectedPods":2}}`, "Content-Type", "application/merge-patch+json")
	if a := evict(); a.Code != 201 {
		t.Fatalf("evict: %d %s", a.Code, a.Body)
	}
	contains(t, f.must("GET", budgets+"/b", "").Body, `"disruptionsAllowed":0`)
	if f.do("GET", pods+"/a", "").Code != 404 {
		t.Error("the pod is still there")
	}
}

// editors may change what is there, but not make anything.
type editors struct{}

func (editors) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.Verb == "create" {
		return authz.NoOpinion, "", nil
	}
	return authz.Allow, "", nil
}

// TestCreatingNeedsCreate checks that neither an apply nor a PUT gets around the right to create.
func TestCreatingNeedsCreate(t *testing.T) {
	f := start(t, func(c *server.Config) { c.Authorizer = editors{} })
	for _, tc := range []struct{ method, path, body, kind string }{
		{"PATCH", configMaps + "/x?fieldManager=me", `{"apiVersion":"v1","kind":"ConfigMap"}`, "application/apply-patch+yaml"},
		{"PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/x", `{"metadata":{"name":"x"}}`, "application/json"},
	} {
		a := f.do(tc.method, tc.path, tc.body, "Content-Type", tc.kind)
		if _, m := a.status(t); a.Code != 403 || !strings.Contains(m, "cannot create resource") {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, a.Code, m)
		}
	}
	if a := f.do("PUT", configMaps+"/x", `{"metadata":{"name":"x"}}`); a.Code != 404 {
		t.Errorf("a PUT made a ConfigMap, or could have: %d %s", a.Code, a.Body)
	}
}

// TestPartsOfObjects writes the subresources that are a part of the object itself.
func TestPartsOfObjects(t *testing.T) {
	f := start(t)
	f.must("POST", "/api/v1/namespaces/default/pods", pod)
	a := f.must("PATCH", "/api/v1/namespaces/default/pods/a/ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"debug","image":"i"}],"hostname":"kept"}}`, "Content-Type", "application/strategic-merge-patch+json")
	contains(t, a.Body, `"ephemeralContainers":[{"name":"debug"`)
	if strings.Contains(a.Body, "kept") {
		t.Errorf("more than the ephemeral containers was written: %s", a.Body)
	}
	a = f.do("PATCH", "/api/v1/namespaces/default/pods/a/resize", `{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}]}}`, "Content-Type", "application/strategic-merge-patch+json")
	if _, m := a.status(t); a.Code != 422 || !strings.Contains(m, "Pod QOS Class may not change as a result of resizing") {
		t.Errorf("resize: %d %s", a.Code, m)
	}
	f.must("POST", "/api/v1/namespaces", `{"metadata":{"name":"gone"}}`)
	a = f.must("DELETE", "/api/v1/namespaces/gone", "")
	contains(t, a.Body, `"phase":"Terminating"`)
	f.must("PUT", "/api/v1/namespaces/gone/finalize", `{"metadata":{"name":"gone"},"spec":{"finalizers":[]}}`)
	if a := f.do("GET", "/api/v1/namespaces/gone", ""); a.Code != 404 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}
