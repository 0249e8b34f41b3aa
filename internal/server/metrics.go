package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the figures of /metrics, under the names that dashboards for Kubernetes know.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics() *metrics {
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
	return m
}

// observe counts one request. Only paths of known resources make label values: anything else would let clients fill the
// memory.
func (m *metrics) observe(t *target, w *recorder, took time.Duration) {
	code := w.code
	if code == 0 {
		code = http.StatusOK
	}
	if t.Res == nil {
		m.requests.WithLabelValues(otherVerb(t.Verb), "", "", "", "", strconv.Itoa(code)).Inc()
		return
	}
	m.requests.WithLabelValues(t.Verb, t.Group, t.Version, t.Resource, t.Subresource, strconv.Itoa(code)).Inc()
	if t.Verb != "watch" && connectors[t.Subresource] == nil {
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

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Metrics returns the registry behind /metrics, for others to add their figures.
func (s *Server) Metrics() *prometheus.Registry { return s.metrics.registry }
