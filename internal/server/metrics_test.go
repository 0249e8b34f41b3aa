package server_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/knarr-io/knarr/internal/server"
)

// TestMetricsAreKubernetes: series under Kubernetes' names have Kubernetes' labels and values.
func TestMetricsAreKubernetes(t *testing.T) {
	f := start(t)
	f.must("POST", configMaps+"?dryRun=All", `{"metadata":{"name":"m"}}`)
	f.must("POST", configMaps, `{"metadata":{"name":"m"}}`)
	f.must("GET", configMaps, "")
	f.must("GET", "/api/v1/configmaps", "")
	f.must("GET", configMaps+"/m", "")
	f.must("PUT", configMaps+"/m", `{"metadata":{"name":"m"}}`)
	f.must("PATCH", configMaps+"/m", `{"data":{"a":"b"}}`, "Content-Type", "application/merge-patch+json")
	f.must("PATCH", configMaps+"/m?fieldManager=me&force=true", `{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"b"}}`, "Content-Type", "application/apply-patch+yaml")
	f.must("GET", configMaps+"?watch=1&timeoutSeconds=1", "")
	f.must("DELETE", configMaps+"/m", "")
	f.must("DELETE", configMaps, "")
	f.must("GET", "/readyz", "")
	f.do("POST", "/api/v1/namespaces/default/pods/none/exec", "")
	f.do("GET", configMaps+"/none", "")
	f.do("FROG", "/api/v1/frogs", "")
	f.must("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{"nonResourceAttributes":{"path":"/","verb":"get"}}}`)
	text := f.must("GET", "/metrics", "").Body
	const of = `component="apiserver",dry_run="",group="",resource="configmaps",`
	for _, want := range []string{
		`apiserver_request_total{code="201",component="apiserver",dry_run="All",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="201",` + of + `scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="cluster",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="404",` + of + `scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="resource",subresource="",verb="PUT",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="resource",subresource="",verb="PATCH",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="resource",subresource="",verb="APPLY",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="namespace",subresource="",verb="WATCH",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="resource",subresource="",verb="DELETE",version="v1"} 1`,
		`apiserver_request_total{code="200",` + of + `scope="namespace",subresource="",verb="DELETECOLLECTION",version="v1"} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="exec",verb="CONNECT",version="v1"} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="other",version=""} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="",scope="",subresource="/readyz",verb="GET",version=""} 1`,
		`apiserver_request_total{code="201",component="apiserver",dry_run="",group="authorization.k8s.io",resource="selfsubjectaccessreviews",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_duration_seconds_bucket{` + of + `scope="cluster",subresource="",verb="LIST",version="v1",le="1"} 1`,
		`apiserver_request_sli_duration_seconds_bucket{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="30"} 2`,
		`apiserver_response_sizes_count{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1"} 0`,
		`apiserver_client_certificate_expiration_seconds_count 0`,
		`apiserver_current_inflight_requests{request_kind="readOnly"} 1`,
		`kubernetes_build_info{`,
		`go_goroutines `, `process_cpu_seconds_total `, `process_resident_memory_bytes `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "frog") {
		t.Error("a client can make up labels")
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "apiserver_request_total") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}

// TestMetricsAreLinted: prometheus' own linter has nothing to say.
func TestMetricsAreLinted(t *testing.T) {
	f := start(t)
	f.must("GET", configMaps, "")
	f.must("GET", configMaps+"?watch=1&timeoutSeconds=1", "")
	f.must("GET", "/livez", "")
	for _, path := range []string{"/metrics", "/metrics/slis"} {
		problems, err := promlint.New(strings.NewReader(f.must("GET", path, "").Body)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if !strings.HasPrefix(p.Metric, "etcd_") { // not ours to name
				t.Errorf("%s: %s: %s", path, p.Metric, p.Text)
			}
		}
	}
}

// TestSLIs: health checks count how they end (KEP-3466).
func TestSLIs(t *testing.T) {
	var ill error
	f := start(t, func(c *server.Config) {
		c.Ready = []server.Check{{Name: "etcd", Check: func(context.Context) error { return ill }}}
	})
	f.must("GET", "/readyz", "")
	f.must("GET", "/livez", "")
	ill = http.ErrServerClosed
	f.do("GET", "/readyz", "")
	var lines []string
	for s := bufio.NewScanner(strings.NewReader(f.must("GET", "/metrics/slis", "").Body)); s.Scan(); {
		lines = append(lines, s.Text())
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		`kubernetes_healthcheck{name="etcd",type="readyz"} 0`, `kubernetes_healthcheck{name="ping",type="livez"} 1`,
		`kubernetes_healthchecks_total{name="etcd",status="error",type="readyz"} 2`, // the scrape has asked, too
		`kubernetes_healthchecks_total{name="etcd",status="success",type="readyz"} 1`,
	} {
		contains(t, text, want)
	}
}
