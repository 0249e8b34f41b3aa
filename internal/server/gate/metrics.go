package gate

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
)

// metrics are the figures of requests, under Kubernetes' names with Kubernetes' labels and values
// (https://kubernetes.io/docs/reference/instrumentation/metrics/), so that its dashboards and alerts work as they are.
type metrics struct {
	served      func() *api.Catalog
	registry    *prometheus.Registry
	requests    *prometheus.CounterVec
	terminated  *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	slo         *prometheus.HistogramVec
	sizes       *prometheus.HistogramVec
	longRunning *prometheus.GaugeVec
	certificate prometheus.Histogram
	health      *healthMetrics
}

// place are the labels that say what a request was about.
var place = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}

func newMetrics(into *prometheus.Registry, f *flight) *metrics {
	labels := func(more ...string) []string { return append(slices.Clone(place), more...) }
	m := &metrics{
		registry: into,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests by verb, resource and HTTP status.",
		}, labels("dry_run", "code")),
		terminated: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_terminations_total", Help: "Requests that the server ended in self-defence.",
		}, labels("code")),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "Time to answer, without watches and streams.",
			Buckets: []float64{.005, .025, .05, .1, .2, .4, .6, .8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, labels("dry_run")),
		slo: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_sli_duration_seconds", Help: "Time to answer that is the server's own, without watches and streams.",
			Buckets: []float64{.05, .1, .2, .4, .6, .8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, labels()),
		sizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_response_sizes", Help: "Size of answers in bytes.", Buckets: prometheus.ExponentialBuckets(1000, 10, 7),
		}, labels()),
		longRunning: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests", Help: "Watches and streams being served.",
		}, labels()),
		certificate: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "apiserver_client_certificate_expiration_seconds", Help: "What is left of the life of the certificates by which requests are authenticated.",
			Buckets: []float64{0, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 345600, 604800, 2592000, 7776000, 15552000, 31104000},
		}),
		health: newHealthMetrics(),
	}
	m.registry.MustRegister(m.requests, m.terminated, m.seconds, m.slo, m.sizes, m.longRunning, m.certificate)
	for kind, n := range map[string]*atomic.Int64{"readOnly": &f.reads, "mutating": &f.writes} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests", Help: "Requests being served, without watches and streams.",
			ConstLabels: prometheus.Labels{"request_kind": kind},
		}, func() float64 { return float64(n.Load()) }))
	}
	return m
}

// begin counts a request that may last, and returns what counts its end.
func (m *metrics) begin(c *call.Call) (end func()) {
	t := c.Target
	_, served := m.served().Find(t.GV().WithResource(t.Resource))
	if !lasting(t) || !served || t.Subresource != "" && !t.Connects() {
		return func() {}
	}
	g := m.longRunning.WithLabelValues(placeOf(c)...)
	g.Inc()
	return g.Dec
}

// observe counts one request that has been answered.
func (m *metrics) observe(c *call.Call, took time.Duration) {
	code := strconv.Itoa(max(c.W.Code, http.StatusOK))
	at := labelsOf(c)
	dryRun := ""
	if c.Query.Get("dryRun") == "All" { // any other value is refused
		dryRun = "All"
	}
	m.requests.WithLabelValues(append(slices.Clone(at), dryRun, code)...).Inc()
	if c.W.Code == http.StatusTooManyRequests || c.W.Code == http.StatusRequestTimeout || c.W.Code == http.StatusGatewayTimeout {
		m.terminated.WithLabelValues(append(slices.Clone(at), code)...).Inc()
	}
	if lasting(c.Target) || !c.Target.Known {
		return
	}
	m.seconds.WithLabelValues(append(slices.Clone(at), dryRun)...).Observe(took.Seconds())
	m.slo.WithLabelValues(at...).Observe(took.Seconds())
	if c.R.Method == http.MethodGet {
		m.sizes.WithLabelValues(at...).Observe(float64(c.W.Bytes))
	}
}

// lasting reports whether requests of a kind last as long as their clients like.
func lasting(t *call.Target) bool { return t.Verb == "watch" || t.Connects() }

// component is what Kubernetes calls the server in its metrics.
const component = "apiserver"

// labelsOf are the values of place. Only what is known to exist makes values: anything else would let clients fill the memory.
func labelsOf(c *call.Call) []string {
	t := c.Target
	switch {
	case !t.IsResource && t.Known:
		return []string{verbOf(c), "", "", "", t.Path, "", component}
	case !t.Known:
		return []string{verbOf(c), "", "", "", "", "", component}
	}
	return placeOf(c)
}

// placeOf are the labels of a target that exists.
func placeOf(c *call.Call) []string {
	t := c.Target
	return []string{verbOf(c), t.Group, t.Version, t.Resource, t.Subresource, scopeOf(t), component}
}

// scopeOf says how much of a resource a request is about.
func scopeOf(t *call.Target) string {
	switch {
	case t.Name != "" || t.Verb == "create":
		return "resource"
	case t.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

// verbOf names what was asked for as Kubernetes' metrics do: the HTTP method, but LIST, WATCH, APPLY, CONNECT and DELETECOLLECTION.
func verbOf(c *call.Call) string {
	switch t := c.Target; {
	case t.IsResource && t.Connects() && t.Subresource != "log":
		return "CONNECT"
	case t.IsResource && (t.Verb == "list" || t.Verb == "watch" || t.Verb == "deletecollection"):
		return strings.ToUpper(t.Verb)
	case c.R.Method == http.MethodPatch && strings.HasPrefix(c.R.Header.Get("Content-Type"), "application/apply-patch"):
		return "APPLY"
	}
	switch c.R.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect:
		return c.R.Method
	}
	return "other"
}

// Metrics serves /metrics.
func (g *Gate) Metrics() http.Handler {
	// etcd, where it is embedded, keeps its own figures in the process's default registry.
	return promhttp.HandlerFor(prometheus.Gatherers{g.metrics.registry, only{prometheus.DefaultGatherer, "etcd_"}}, promhttp.HandlerOpts{})
}

// only passes on the metrics whose names begin with prefix.
type only struct {
	prometheus.Gatherer
	prefix string
}

// Gather implements prometheus.Gatherer.
func (o only) Gather() ([]*dto.MetricFamily, error) {
	all, err := o.Gatherer.Gather()
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), o.prefix) }), err
}
