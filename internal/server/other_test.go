package server_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
)

func TestHealth(t *testing.T) {
	ready := errors.New("the store is loading: secret detail")
	f := start(t, func(c *server.Config) {
		c.Ready = []server.Check{{Name: "store", Check: func(context.Context) error { return ready }}}
	})
	nobody := []string{"X-User", "nobody"}
	if a := f.do("GET", "/livez", "", nobody...); a.Code != 200 || a.Body != "ok" {
		t.Errorf("livez: %d %s", a.Code, a.Body)
	}
	a := f.do("GET", "/readyz", "", nobody...)
	if a.Code != 500 || a.Body != "[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n" {
		t.Errorf("readyz: %d %s", a.Code, a.Body)
	}
	if a := f.do("GET", "/readyz?exclude=store", "", nobody...); a.Code != 200 {
		t.Errorf("readyz without store: %d %s", a.Code, a.Body)
	}
	ready = nil
	if a := f.do("GET", "/readyz?verbose", "", nobody...); a.Body != "[+]ping ok\n[+]store ok\nreadyz check passed\n" {
		t.Errorf("readyz: %d %s", a.Code, a.Body)
	}
	if a := f.do("GET", "/readyz/store", "", nobody...); a.Code != 200 {
		t.Errorf("readyz/store: %d %s", a.Code, a.Body)
	}
	if a := f.do("GET", "/readyz/frog", "", nobody...); a.Code != 404 {
		t.Errorf("readyz/frog: %d %s", a.Code, a.Body)
	}
	for _, path := range []string{"/", "/version", "/metrics", "/api", "/openapi/v2", "/debug/pprof/", "/api/v1/pods"} {
		if a := f.do("GET", path, "", nobody...); a.Code != 401 {
			t.Errorf("%s is open to anyone: %d", path, a.Code)
		}
	}
}

func TestOtherPaths(t *testing.T) {
	f := start(t, func(c *server.Config) {
		c.Documents = map[string]func() ([]byte, error){"/openid/v1/jwks": func() ([]byte, error) { return []byte(`{"keys":[]}`), nil }}
	})
	contains(t, f.must("GET", "/version", "").Body, `"gitVersion": "v1.37.2+knarr"`)
	contains(t, f.must("GET", "/", "").Body, `"/apis/apps/v1"`)
	if a := f.must("GET", "/openid/v1/jwks", ""); a.Body != `{"keys":[]}` || a.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("%s %v", a.Body, a.Header)
	}
	f.must("GET", "/api/v1/configmaps", "")
	f.do("GET", "/api/v1/namespaces/default/pods/x/frog-"+strings.Repeat("x", 20), "")
	m := f.must("GET", "/metrics", "").Body
	contains(t, m, `apiserver_resource_objects{group="",resource="namespaces"} `)
	contains(t, m, `apiserver_current_inflight_requests{request_kind="readOnly"} 1`)
	contains(t, m, `apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="cluster",subresource="",verb="LIST",version="v1"} 1`)
	if strings.Contains(m, "frog") {
		t.Error("a client can make up labels")
	}
	contains(t, f.must("GET", "/debug/pprof/goroutine?debug=1", "").Body, "goroutine profile")

	as := "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
	a := f.must("GET", "/apis", "", "Accept", as)
	contains(t, a.Header.Get("Content-Type"), "as=APIGroupDiscoveryList")
	if b := f.do("GET", "/apis", "", "Accept", as, "If-None-Match", a.Header.Get("ETag")); b.Code != 304 {
		t.Errorf("discovery sent again: %d", b.Code)
	}
	for _, path := range []string{"/apis/frogs", "/apis/apps/v9", "/api/v2", "/openapi/v3/apis/frogs/v1", "/openapi/v3/x", "/apis/apps/v1/"} {
		if want := map[bool]int{true: 200, false: 404}[path == "/apis/apps/v1/"]; f.do("GET", path, "").Code != want {
			t.Errorf("%s: %d, want %d", path, f.do("GET", path, "").Code, want)
		}
	}
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal([]byte(f.must("GET", "/openapi/v3", "").Body), &index); err != nil {
		t.Fatal(err)
	}
	doc := f.must("GET", index.Paths["apis/apps/v1"].ServerRelativeURL, "", "Accept-Encoding", "identity")
	contains(t, doc.Body, `"io.k8s.api.apps.v1.Deployment"`)
	if doc.Header.Get("Expires") == "" {
		t.Error("a document named by its hash can be kept")
	}
}

func TestReviews(t *testing.T) {
	f := start(t)
	post := func(path, spec, as string) string {
		return f.must("POST", path, `{"spec":`+spec+`}`, "X-User", as).Body
	}
	can := `{"resourceAttributes":{"verb":"get","resource":"pods","namespace":"x"}}`
	contains(t, f.must("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":`+can+`}`).Body, `"status":{"allowed":true}`)
	contains(t, post("/apis/authorization.k8s.io/v1/subjectaccessreviews", `{"user":"eve","resourceAttributes":{"verb":"get","resource":"pods"}}`, ""), `"status":{"allowed":false`)
	contains(t, f.must("POST", "/apis/authorization.k8s.io/v1/namespaces/x/localsubjectaccessreviews", `{"metadata":{"namespace":"x"},"spec":{"groups":["system:masters"],"resourceAttributes":{"verb":"get","resource":"pods","namespace":"x"}}}`).Body, `"allowed":true`)
	contains(t, f.must("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", `{"spec":{"namespace":"x"}}`).Body, `"resourceRules":[{"verbs":["*"]`)
	contains(t, f.must("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{}`).Body, `"username":"admin"`)
	for _, tc := range [][3]string{
		{"selfsubjectaccessreviews", `{"metadata":{"name":"x"},"spec":` + can + `}`, "metadata: Invalid value: "},
		{"subjectaccessreviews", `{"metadata":{"labels":{"a":"b"}},"spec":{"user":"eve","resourceAttributes":{"verb":"get"}}}`, "must be empty"},
		{"subjectaccessreviews", `{"spec":` + can + `}`, `spec.user: Invalid value: "": at least one of user or group must be specified`},
		{"subjectaccessreviews", `{"spec":{"user":"eve","resourceAttributes":{"verb":"get","labelSelector":{}}}}`, "spec.resourceAttributes.labelSelector.requirements: Required value"},
		{"namespaces/x/localsubjectaccessreviews", `{"spec":{"user":"eve","resourceAttributes":{"verb":"get","namespace":"y"}}}`, "must match metadata.namespace"},
		{"namespaces/x/localsubjectaccessreviews", `{"metadata":{"name":"n"},"spec":{"user":"eve","resourceAttributes":{"verb":"get","namespace":"x"}}}`, "must be empty except for namespace"},
		{"namespaces/x/localsubjectaccessreviews", `{"metadata":{"namespace":"y"},"spec":{"user":"eve","resourceAttributes":{"verb":"get","namespace":"y"}}}`, "must match namespace: x"},
	} {
		a := f.do("POST", "/apis/authorization.k8s.io/v1/"+tc[0], tc[1])
		if _, m := a.status(t); a.Code/100 != 4 || !strings.Contains(m, tc[2]) {
			t.Errorf("%s %s: %d %s", tc[0], tc[1], a.Code, m)
		}
	}
	for body, want := range map[string]string{
		`{"spec":{}}`:             "exactly one of nonResourceAttributes or resourceAttributes must be specified",
		`{"kind":"TokenReview"}`:  "",
		`{"spec":{"frog":true},"`: "",
	} {
		a := f.do("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
		if _, m := a.status(t); a.Code/100 != 4 || !strings.Contains(m, want) {
			t.Errorf("%s: %d %s", body, a.Code, m)
		}
	}
	if a := f.do("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", ""); a.Code != 405 {
		t.Errorf("reviews can be listed: %d", a.Code)
	}
	contains(t, f.must("POST", "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":"x"}}`).Body, "this server knows no tokens")
}

// issuer gives every account the same token.
type issuer struct{}

func (issuer) TokenRequest(account api.Key, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	out := req.DeepCopy()
	out.Status.Token = "token of " + account.String()
	return out, nil
}

func (issuer) AuthenticateToken(_ context.Context, token string, audiences []string) (user.Info, []string, bool, error) {
	if token != "good" {
		return nil, nil, false, errors.New("bad token")
	}
	return &user.DefaultInfo{Name: "sam", Extra: map[string][]string{"k": {"v"}}}, audiences, true, nil
}

func TestTokens(t *testing.T) {
	f := start(t, func(c *server.Config) { c.Issuer, c.Tokens = issuer{}, issuer{} })
	a := f.must("POST", "/api/v1/namespaces/default/serviceaccounts/sa/token", `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"expirationSeconds":600}}`)
	contains(t, a.Body, `"token":"token of default/sa"`)
	contains(t, f.must("POST", "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":"good","audiences":["a"]}}`).Body, `"status":{"authenticated":true,"user":{"username":"sam","extra":{"k":["v"]}},"audiences":["a"]}`)
	contains(t, f.must("POST", "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":"bad"}}`).Body, `"error":"bad token"`)
}

func TestTables(t *testing.T) {
	f := start(t)
	f.must("POST", "/api/v1/namespaces/default/pods", pod)
	as := "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	var table struct {
		Kind              string
		Metadata          struct{ ResourceVersion string }
		ColumnDefinitions []struct{ Name string }
		Rows              []struct {
			Cells  []any
			Object struct {
				Kind     string
				Metadata struct{ Name string }
				Spec     any
			}
		}
	}
	read := func(path string) {
		t.Helper()
		table.Rows, table.ColumnDefinitions = nil, nil
		if err := json.Unmarshal([]byte(f.must("GET", path, "", "Accept", as).Body), &table); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/api/v1/pods", "/api/v1/namespaces/default/pods/a"} {
		read(path)
		if table.Kind != "Table" || len(table.Rows) != 1 || table.Rows[0].Cells[0] != "a" || table.ColumnDefinitions[2].Name != "Status" ||
			table.Rows[0].Object.Kind != "PartialObjectMetadata" || table.Rows[0].Object.Metadata.Name != "a" || table.Metadata.ResourceVersion == "" {
			t.Errorf("%s: %+v", path, table)
		}
	}
	read("/api/v1/pods?includeObject=Object")
	if o := table.Rows[0].Object; o.Kind != "Pod" || o.Spec == nil {
		t.Errorf("%+v", o)
	}
	w := f.must("GET", "/api/v1/pods?watch=1&timeoutSeconds=1", "", "Accept", as).Body
	contains(t, w, `{"type":"ADDED","object":{"kind":"Table","apiVersion":"meta.k8s.io/v1"`)
	if a := f.do("GET", "/api/v1/pods?includeObject=Frog", "", "Accept", as); a.Code != 400 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestFormatsOfAnswers(t *testing.T) {
	f := start(t)
	f.must("POST", configMaps, "metadata: {name: yaml}\ndata: {a: 'yes'}\n", "Content-Type", "application/yaml")
	contains(t, f.must("GET", configMaps+"/yaml", "", "Accept", "application/yaml").Body, "a: \"yes\"")
	contains(t, f.must("GET", configMaps, "", "Accept", "application/yaml").Body, "kind: ConfigMapList")
	contains(t, f.must("GET", configMaps+"/yaml?pretty=true", "").Body, "\n  \"kind\": \"ConfigMap\",\n")
	contains(t, f.must("GET", configMaps+"?pretty=1", "").Body, "\n  \"kind\": \"ConfigMapList\",\n")
	a := f.do("GET", configMaps+"/none", "", "Accept", "application/yaml")
	contains(t, a.Body, "reason: NotFound")

	f.must("POST", configMaps, fmt.Sprintf(`{"metadata":{"name":"big"},"data":{"x":%q}}`, strings.Repeat("y", 200<<10)))
	a = f.must("GET", configMaps, "", "Accept-Encoding", "gzip")
	if a.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("a big answer is not compressed: %v", a.Header)
	}
	z, err := gzip.NewReader(strings.NewReader(a.Body))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil || !json.Valid(b) || len(a.Body) > 10<<10 {
		t.Errorf("%v, %d bytes", err, len(a.Body))
	}
}

// everyone may do everything.
type everyone struct{}

func (everyone) Authorize(context.Context, *authz.Attributes) (authz.Decision, string, error) {
	return authz.Allow, "", nil
}

// TestTooMany fills the only seat and sees the next request refused.
func TestTooMany(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	f := start(t, func(c *server.Config) {
		c.Seats, c.Authorizer = 1, everyone{}
		c.Documents = map[string]func() ([]byte, error){"/slow": func() ([]byte, error) {
			close(inside)
			<-leave
			return []byte("{}"), nil
		}}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.do("GET", "/slow", "", "X-User", "eve")
	}()
	<-inside
	a := f.do("GET", configMaps, "", "X-User", "eve")
	if reason, _ := a.status(t); a.Code != 429 || reason != "TooManyRequests" || a.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %s %v", a.Code, a.Body, a.Header)
	}
	if a := f.do("GET", "/livez", ""); a.Code != 200 {
		t.Errorf("health needs no seat: %d", a.Code)
	}
	contains(t, f.must("GET", "/metrics", "").Body, `apiserver_flowcontrol_rejected_requests_total{flow_schema="catch-all",priority_level="catch-all",reason="concurrency-limit"} 1`)
	if a := f.do("GET", configMaps, ""); a.Code != 200 {
		t.Errorf("administrators get through: %d", a.Code)
	}
	close(leave)
	<-done
	f.must("GET", configMaps, "", "X-User", "eve")
}

func TestPanic(t *testing.T) {
	f := start(t, func(c *server.Config) {
		c.Documents = map[string]func() ([]byte, error){"/boom": func() ([]byte, error) { panic("boom") }}
	})
	a := f.do("GET", "/boom", "")
	if reason, m := a.status(t); a.Code != 500 || reason != "InternalError" || !strings.Contains(m, "boom") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

// TestTruncated announces more than it sends.
func TestTruncated(t *testing.T) {
	f := start(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST "+configMaps+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"metadata\""); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(b), "400 Bad Request")
	contains(t, string(b), "ended after 11 bytes, but Content-Length announced 100")
}

// TestProxy reaches a pod through the API.
func TestProxy(t *testing.T) {
	var seen http.Header
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.RequestURI())
	}))
	defer backend.Close()
	var dialled string
	f := start(t, func(c *server.Config) {
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = address
			return (&net.Dialer{}).DialContext(ctx, network, backend.Listener.Addr().String())
		}
	})
	pods := "/api/v1/namespaces/default/pods"
	f.must("POST", pods, pod)
	if a := f.do("GET", pods+"/a:80/proxy/", ""); a.Code != 503 {
		t.Errorf("a pod without an address: %d %s", a.Code, a.Body)
	}
	f.must("PATCH", pods+"/a/status", `{"status":{"podIP":"10.1.2.3","podIPs":[{"ip":"10.1.2.3"}]}}`, "Content-Type", "application/merge-patch+json")
	a := f.must("PUT", pods+"/a:8080/proxy/x/y?q=1", "", "Authorization", "Bearer secret", "Impersonate-Uid", "")
	if a.Body != "PUT /x/y?q=1" || dialled != "10.1.2.3:8080" {
		t.Errorf("got %q from %s", a.Body, dialled)
	}
	if a := f.do("OPTIONS", pods+"/a:8080/proxy/", ""); a.Code != 200 || a.Body != "OPTIONS /" {
		t.Errorf("OPTIONS is the pod's business: %d %s", a.Code, a.Body)
	}
	if seen.Get("Authorization") != "" {
		t.Error("the pod gets to see the user's credentials")
	}
	f.must("PATCH", pods+"/a/status", `{"status":{"podIP":"127.0.0.1","podIPs":[{"ip":"127.0.0.1"}]}}`, "Content-Type", "application/merge-patch+json")
	if a := f.do("GET", pods+"/a:6443/proxy/", ""); a.Code != 400 {
		t.Errorf("a pod's status opens the way to this machine: %d %s", a.Code, a.Body)
	}
}
