package controlplane_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/store"
)

// everyone is an administrator.
type everyone struct{}

func (everyone) Authenticate(*http.Request) (user.Info, bool, error) {
	return &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}, true, nil
}

// plain is a control plane behind plain HTTP.
type plain struct {
	t   testing.TB
	url string
	end func()
}

// openPlain runs a control plane over a backend.
func openPlain(t testing.TB, backend store.Backend, change ...func(*controlplane.Config)) *plain {
	t.Helper()
	services, pods := netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16")
	cfg := controlplane.Config{
		Backend: backend, ServiceCIDR: services, ClusterCIDR: pods, CA: []byte("ca"), Log: log,
		Initial: controlplane.Params{ServiceCIDR: services, ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443")},
	}
	for _, f := range change {
		f(&cfg)
	}
	plane, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := plane.Run(ctx); err != nil {
			t.Errorf("the control plane ended: %v", err)
		}
	})
	h := httptest.NewServer(server.New(server.Config{Registry: plane.Registry, Authorizer: authz.Union{authz.Masters{}}, Log: log, Authenticator: everyone{}}))
	end := sync.OnceFunc(func() { closeServer(h); cancel(); wg.Wait() })
	t.Cleanup(end)
	<-plane.Ready()
	return &plain{t, h.URL, end}
}

// closeServer ends h and the connections of its clients, also those on which a watch begins in this moment, for which Close alone would wait.
func closeServer(h *httptest.Server) {
	closed := make(chan struct{})
	go func() { defer close(closed); h.Close() }()
	for {
		select {
		case <-closed:
			return
		case <-time.After(time.Millisecond):
			h.CloseClientConnections()
		}
	}
}

// do sends a request whose body is YAML and returns the answer's code and body; headers are name, value pairs.
func (p *plain) do(method, path, body string, headers ...string) (int, string) {
	p.t.Helper()
	var data []byte
	if body != "" {
		var err error
		if data, err = yaml.YAMLToJSON([]byte(body)); err != nil {
			p.t.Fatal(err)
		}
	}
	for {
		code, out := p.send(method, path, bytes.NewReader(data), headers...)
		if code != http.StatusInternalServerError || !strings.Contains(out, `"reason":"ServerTimeout"`) {
			return code, out
		}
		time.Sleep(10 * time.Millisecond) // its table was exchanged in this moment: clients ask again
	}
}

// send is do with a body as it is.
func (p *plain) send(method, path string, body io.Reader, headers ...string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

// must is do where the answer must have a code and say some text.
func (p *plain) must(code int, want string, method, path, body string, headers ...string) string {
	p.t.Helper()
	got, out := p.do(method, path, body, headers...)
	if got != code || !strings.Contains(out, want) {
		p.t.Fatalf("%s %s: %d %s\nwant %d and %q", method, path, got, out, code, want)
	}
	return out
}

// await asks until the answer has a code and says some text.
func (p *plain) await(code int, want string, path string) string {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, out := p.do("GET", path, "")
		if got == code && strings.Contains(out, want) {
			return out
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("GET %s: %d %s\nwant %d and %q", path, got, out, code, want)
		}
	}
}

const definitionsPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// define creates a definition and waits until it is established.
func (p *plain) define(manifest string) {
	p.t.Helper()
	out := p.must(201, "", "POST", definitionsPath, manifest)
	var def struct{ Metadata struct{ Name string } }
	if err := json.Unmarshal([]byte(out), &def); err != nil {
		p.t.Fatal(err)
	}
	p.await(200, `"reason":"InitialNamesAccepted"`, definitionsPath+"/"+def.Metadata.Name)
}

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    selectableFields:
    - {jsonPath: .spec.color}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: "self.size <= 10", message: too large}
            - {rule: "self.color == oldSelf.color", message: color is immutable, fieldPath: .color}
            properties:
              size: {type: integer, default: 3}
              color: {type: string, default: red, maxLength: 10}
              replicas: {type: integer}
              parts:
                type: array
                maxItems: 10
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties:
                    name: {type: string, maxLength: 20}
                    weight: {type: integer}
          status:
            type: object
            properties:
              replicas: {type: integer}
              selector: {type: string}
`

const widget = `{apiVersion: example.com/v1, kind: Widget, metadata: {name: a}, spec: {size: 1}}`

const widgetsPath = "/apis/example.com/v1/namespaces/default/widgets"

func TestDefinitionLivesAndDies(t *testing.T) {
	backend := store.NewMem()
	p := openPlain(t, backend)
	p.must(404, "", "GET", widgetsPath, "")
	p.define(widgets)
	out := p.must(201, `"color":"red"`, "POST", widgetsPath, widget)
	if !strings.Contains(out, `"generation":1`) {
		t.Errorf("a new object has no generation: %s", out)
	}
	p.must(200, `"kind":"WidgetList"`, "GET", widgetsPath, "")
	p.must(200, `"size":5`, "PATCH", widgetsPath+"/a", "{spec: {size: 5}}", "Content-Type", "application/merge-patch+json")
	p.must(200, `"generation":2`, "GET", widgetsPath+"/a", "")
	p.end()

	p = openPlain(t, backend)
	p.must(200, `"size":5`, "GET", widgetsPath+"/a", "")
	out = p.must(200, "InstanceDeletionPending", "DELETE", definitionsPath+"/widgets.example.com", "")
	if !strings.Contains(out, `"generation":1`) {
		t.Errorf("its deletion changed what the definition says: %s", out)
	}
	p.await(404, "", definitionsPath+"/widgets.example.com")
	p.await(404, "", widgetsPath+"/a")
	p.define(widgets)
	p.must(200, `"items":[]`, "GET", widgetsPath, "")
}

func TestObjectsFollowTheirSchema(t *testing.T) {
	p := openPlain(t, store.NewMem())
	p.define(widgets)
	const merge, apply = "application/merge-patch+json", "application/apply-patch+yaml"
	object := func(name, spec string) string {
		return "{apiVersion: example.com/v1, kind: Widget, metadata: {name: " + name + "}, spec: {" + spec + "}}"
	}
	out := p.must(201, `"size":3`, "POST", widgetsPath, object("a", "potato: 1"))
	if strings.Contains(out, "potato") {
		t.Errorf("an unknown field was kept: %s", out)
	}
	p.must(400, `unknown field \"spec.potato\"`, "POST", widgetsPath+"?fieldValidation=Strict", object("b", "potato: 1"))
	p.must(422, `spec.size: Invalid value: \"string\": spec.size in body must be of type integer`, "POST", widgetsPath, object("b", "size: big"))
	p.must(422, `too large`, "POST", widgetsPath, object("b", "size: 11"))
	p.must(422, `spec.color: Invalid value: color is immutable`, "PATCH", widgetsPath+"/a", "{spec: {color: blue}}", "Content-Type", merge)
	p.must(422, `metadata.name`, "POST", widgetsPath, object("Big_Name", ""))
	p.must(409, "AlreadyExists", "POST", widgetsPath, object("a", ""))

	// The object keeps the status, its status subresource everything else.
	out = p.must(200, `"size":4`, "PATCH", widgetsPath+"/a", "{spec: {size: 4}, status: {replicas: 9}}", "Content-Type", merge)
	if strings.Contains(out, "status") {
		t.Errorf("the object's own write set the status: %s", out)
	}
	out = p.must(200, `"status":{"replicas":2}`, "PATCH", widgetsPath+"/a/status", "{spec: {size: 9}, status: {replicas: 2, potato: 1}}", "Content-Type", merge)
	if !strings.Contains(out, `"size":4`) || !strings.Contains(out, `"generation":2`) {
		t.Errorf("a write of the status changed the object: %s", out)
	}
	p.must(422, "status.replicas", "PATCH", widgetsPath+"/a/status", "{status: {replicas: many}}", "Content-Type", merge)

	const missing = `the spec replicas field \".spec.replicas\" `
	p.must(500, missing+"does not exist", "GET", widgetsPath+"/a/scale", "")
	p.must(400, missing+"cannot be empty", "PATCH", widgetsPath+"/a/scale", "{metadata: {labels: {x: z}}}", "Content-Type", merge)
	p.must(200, `"spec":{"replicas":1}`, "PATCH", widgetsPath+"/a/scale", "{spec: {replicas: 1}}", "Content-Type", merge)
	p.must(200, `"spec":{"replicas":7}`, "PATCH", widgetsPath+"/a/scale", "{spec: {replicas: 7}}", "Content-Type", merge)
	p.must(200, `"replicas":7`, "GET", widgetsPath+"/a", "")

	p.must(200, `"name":"Size"`, "GET", widgetsPath, "", "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	p.must(201, "", "POST", widgetsPath, object("b", "color: blue"))
	out = p.must(200, `"name":"b"`, "GET", widgetsPath+"?fieldSelector=spec.color%3Dblue", "")
	if strings.Contains(out, `"name":"a"`) {
		t.Errorf("the field selector let through more than it says: %s", out)
	}
	p.must(400, "field label not supported", "GET", widgetsPath+"?fieldSelector=spec.size%3D1", "")

	// Lists with keys are merged by them.
	p.must(201, "", "PATCH", widgetsPath+"/c?fieldManager=x", object("c", "parts: [{name: p, weight: 1}]"), "Content-Type", apply)
	p.must(200, `"parts":[{"name":"p","weight":1},{"name":"q"}]`, "PATCH", widgetsPath+"/c?fieldManager=y", object("c", "parts: [{name: q}]"), "Content-Type", apply)
	p.must(409, "conflict", "PATCH", widgetsPath+"/c?fieldManager=y", object("c", "parts: [{name: p, weight: 2}]"), "Content-Type", apply)
	p.must(422, "Duplicate value", "POST", widgetsPath, object("d", "parts: [{name: p}, {name: p}]"))

	p.must(406, "", "GET", widgetsPath+"/a", "", "Accept", "application/vnd.kubernetes.protobuf")
	p.must(415, "", "PATCH", widgetsPath+"/a", "{spec: {size: 1}}", "Content-Type", "application/strategic-merge-patch+json")
}

// versions has two versions with different fields, and the strategy None.
const versions = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gears.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {plural: gears, kind: Gear}
  versions:
  - name: v1beta1
    served: true
    storage: true
    deprecated: true
    schema: {openAPIV3Schema: {type: object, properties: {teeth: {type: integer}, old: {type: string}}}}
  - name: v1
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, properties: {teeth: {type: integer}, material: {type: string, default: steel}}}}
`

func TestVersionsOfOneKind(t *testing.T) {
	p := openPlain(t, store.NewMem())
	p.define(versions)
	const v1, beta = "/apis/example.com/v1/gears", "/apis/example.com/v1beta1/gears"
	p.must(201, "", "POST", beta, "{apiVersion: example.com/v1beta1, kind: Gear, metadata: {name: g}, teeth: 7, old: x}")
	out := p.must(200, `"apiVersion":"example.com/v1"`, "GET", v1+"/g", "")
	if strings.Contains(out, `"old"`) || !strings.Contains(out, `"teeth":7`) {
		t.Errorf("v1 of an object that is stored as v1beta1: %s", out)
	}
	p.must(200, `"apiVersion":"example.com/v1"`, "GET", v1, "")

	// The stored version changes; what is stored stays as it is until it is written.
	p.must(200, `"storedVersions":["v1beta1","v1"]`, "PATCH", definitionsPath+"/gears.example.com",
		`[{op: replace, path: /spec/versions/0/storage, value: false}, {op: replace, path: /spec/versions/1/storage, value: true}]`, "Content-Type", "application/json-patch+json")
	p.await(200, `"old":"x"`, beta+"/g")
	p.must(200, `"material":"tin"`, "PATCH", v1+"/g", "{material: tin}", "Content-Type", "application/merge-patch+json")
	p.must(200, `"teeth":7`, "GET", beta+"/g", "")
	p.must(422, "storedVersions", "PATCH", definitionsPath+"/gears.example.com", `[{op: remove, path: /spec/versions/0}]`, "Content-Type", "application/json-patch+json")
	p.must(200, "", "DELETE", definitionsPath+"/gears.example.com", "")
	p.await(404, "", definitionsPath+"/gears.example.com")
}

// TestStorageVersionMigration: objects that were stored in the version before are stored in the present one, and the other one may go.
func TestStorageVersionMigration(t *testing.T) {
	backend := store.NewMem()
	p := openPlain(t, backend)
	p.define(versions)
	const v1, beta, definition, migrations = "/apis/example.com/v1/gears", "/apis/example.com/v1beta1/gears", definitionsPath + "/gears.example.com", "/apis/storagemigration.k8s.io/v1/storageversionmigrations"
	p.must(201, "", "POST", beta, "{apiVersion: example.com/v1beta1, kind: Gear, metadata: {name: a}, teeth: 7}")
	p.must(200, "", "PATCH", definition, `[{op: replace, path: /spec/versions/0/storage, value: false}, {op: replace, path: /spec/versions/1/storage, value: true}]`,
		"Content-Type", "application/json-patch+json")
	p.await(200, `"storedVersions":["v1beta1","v1"]`, definition)
	before := p.must(200, "", "GET", v1+"/a", "")
	p.must(201, "", "POST", migrations, "{apiVersion: storagemigration.k8s.io/v1, kind: StorageVersionMigration, metadata: {name: m}, spec: {resource: {group: example.com, resource: gears}}}")
	p.await(200, `"reason":"MigrationCompleted"`, migrations+"/m")
	p.must(200, `"type":"Succeeded"`, "GET", migrations+"/m", "")
	p.await(200, `"storedVersions":["v1"]`, definition)
	p.must(200, `The migration has succeeded and the stored versions have been updated`, "GET", definition, "")
	if after := p.must(200, `"teeth":7`, "GET", v1+"/a", ""); after == before {
		t.Error("the object was not written anew")
	}
	p.must(200, "", "PATCH", definition, `[{op: remove, path: /spec/versions/0}]`, "Content-Type", "application/json-patch+json")
	p.await(404, "", beta)
	p.must(200, `"teeth":7`, "GET", v1+"/a", "")
}

func TestNamesThatAreTaken(t *testing.T) {
	p := openPlain(t, store.NewMem())
	p.define(widgets)
	other := strings.NewReplacer("widgets.example.com", "gadgets.example.com", "plural: widgets, singular: widget", "plural: gadgets, singular: gadget").Replace(widgets)
	p.must(201, "", "POST", definitionsPath, other)
	p.await(200, `\"WidgetList\" is already in use`, definitionsPath+"/gadgets.example.com")
	p.must(200, "", "DELETE", definitionsPath+"/widgets.example.com", "")
	p.await(200, "InitialNamesAccepted", definitionsPath+"/gadgets.example.com")
}

func TestBadDefinitionsAreRefused(t *testing.T) {
	p := openPlain(t, store.NewMem())
	for _, c := range []struct{ from, to, want string }{
		{"self.size <= 10", "self.size <= ", "Syntax error"},
		{"self.size <= 10", "self.potato <= 10", "undefined field 'potato'"},
		{"type: string, default: red, maxLength: 10", "default: red", "spec.validation.openAPIV3Schema.properties[spec].properties[color].type: Required value"},
		{"default: 3", "default: three", "must be of type integer"},
		{"maxItems: 10", "x-kubernetes-validations: [{rule: 'self.all(a, self.all(b, self.all(c, a.name != b.name || b.name != c.name)))'}]", "exceeds budget"},
	} {
		if !strings.Contains(widgets, c.from) {
			t.Fatalf("no %q", c.from)
		}
		p.must(422, c.want, "POST", definitionsPath, strings.Replace(widgets, c.from, c.to, 1))
	}
}
