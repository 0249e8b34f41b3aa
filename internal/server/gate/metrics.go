package gate

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/knarr-io/knarr/internal/server/call"
)

// metrics are the figures of /metrics, under the names that dashboards for Kubernetes know.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(l *limits) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests by verb, resource and HTTP status.",
		}, []string{"verb", "group", "version", "resource", "subresource", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "Time to answer, without watches and streams.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"verb", "resource"}),
	}
	m.registry.MustRegister(m.requests, m.seconds, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for kind, slots := range map[string]*share{"readOnly": l.reads, "mutating": l.writes} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests", Help: "Requests being served, without watches and streams.",
			ConstLabels: prometheus.Labels{"request_kind": kind},
		}, func() float64 { return float64(slots.taken()) }))
	}
	return m
}

// observe counts one request. Only paths of known resources make label values: anything else would let clients fill the
// memory.
func (m *metrics) observe(t *call.Target, w *call.Recorder, took time.Duration) {
	code := w.Code
	if code == 0 {
		code = http.StatusOK
	}
	if t.Res == nil {
		m.requests.WithLabelValues(otherVerb(t.Verb), "", "", "", "", strconv.Itoa(code)).Inc()
		return
	}
	m.requests.WithLabelValues(t.Verb, t.Group, t.Version, t.Resource, t.Subresource, strconv.Itoa(code)).Inc()
	if t.Verb != "watch" && !t.Connects() {
		m.seconds.WithLabelValues(t.Verb, t.Resource).Observe(took.Seconds())
	}
}

func otherVerb(v string) string {
	switch v {
	case "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "post", "put", "head", "options":
		return v
	}
	return "other"
}

// Metrics returns the registry behind /metrics, for others to add their figures.
func (g *Gate) Metrics() *prometheus.Registry { return g.metrics.registry }

// MetricsHandler serves /metrics.
func (g *Gate) MetricsHandler() http.Handler {
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
