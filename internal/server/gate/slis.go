package gate

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// healthMetrics are what /metrics/slis answers (KEP-3466): how each health check ended the last time, and how often it has been asked.
type healthMetrics struct {
	registry *prometheus.Registry
	last     *prometheus.GaugeVec
	asked    *prometheus.CounterVec
}

func newHealthMetrics() *healthMetrics {
	m := &healthMetrics{
		registry: prometheus.NewRegistry(),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubernetes_healthcheck", Help: "Result of the last time that a health check was asked: 1 is healthy.",
		}, []string{"name", "type"}),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubernetes_healthchecks_total", Help: "Results of health checks.",
		}, []string{"name", "status", "type"}),
	}
	m.registry.MustRegister(m.last, m.asked)
	return m
}

// observe counts the result of a check that was asked by root: healthz, livez or readyz.
func (m *healthMetrics) observe(name, root string, err error) {
	status, value := "success", 1.
	if err != nil {
		status, value = "error", 0
	}
	m.last.WithLabelValues(name, root).Set(value)
	m.asked.WithLabelValues(name, status, root).Inc()
}

// SLIs serves /metrics/slis: of now, whether or not somebody else asks for the server's health.
func (g *Gate) SLIs() http.Handler {
	series := promhttp.HandlerFor(g.metrics.health.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, check := range g.checks("readyz") {
			g.metrics.health.observe(check.Name, "readyz", check.Check(r.Context()))
		}
		series.ServeHTTP(w, r)
	})
}
