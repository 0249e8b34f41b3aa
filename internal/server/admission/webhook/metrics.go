package webhook

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/server/admission"
)

// metrics have the names that kube-apiserver gives them
// (https://kubernetes.io/docs/reference/instrumentation/metrics/).
type metrics struct {
	duration   *prometheus.HistogramVec
	requests   *prometheus.CounterVec
	rejections *prometheus.CounterVec
	failedOpen *prometheus.CounterVec
	excluded   *prometheus.CounterVec
	conditions *prometheus.CounterVec
	evaluation *prometheus.HistogramVec
	healed     *prometheus.CounterVec
}

// newMetrics registers the metrics with reg; nil registers them nowhere.
func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		duration: histogram("apiserver_admission_webhook_admission_duration_seconds", "How long webhooks took to answer.",
			[]float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 25}, "name", "type", "operation", "rejected"),
		requests: counter("apiserver_admission_webhook_request_total", "Requests to webhooks, by the code of the outcome.",
			"name", "type", "operation", "code", "rejected"),
		rejections: counter("apiserver_admission_webhook_rejection_count", "Writes that were refused because of a webhook.",
			"name", "type", "operation", "error_type", "rejection_code"),
		failedOpen: counter("apiserver_admission_webhook_fail_open_count", "Failures of webhooks that were passed over.", "name", "type"),
		excluded: counter("apiserver_admission_match_condition_exclusions_total", "Writes that match conditions kept from a webhook.",
			"name", "kind", "type", "operation"),
		conditions: counter("apiserver_admission_match_condition_evaluation_errors_total", "Match conditions that could not be evaluated.",
			"name", "kind", "type", "operation"),
		evaluation: histogram("apiserver_admission_match_condition_evaluation_seconds", "How long the evaluation of match conditions took.",
			[]float64{0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25}, "name", "kind", "type", "operation"),
		healed: counter("knarr_admission_webhook_healing_writes_total", "Writes that were let through because they heal the dead back end of a webhook.",
			"name", "type"),
	}
	if reg != nil {
		reg.MustRegister(m.duration, m.requests, m.rejections, m.failedOpen, m.excluded, m.conditions, m.evaluation, m.healed)
	}
	return m
}

// Types of errors in the rejection count.
const (
	noError       = "no_error"
	callingError  = "calling_webhook_error"
	internalError = "apiserver_internal_error"
)

// largestCode bounds the values of the label.
const largestCode = 600

func label(code int32) string { return strconv.Itoa(int(min(code, largestCode))) }

func (m *metrics) called(h *hook, mutating bool, op admission.Operation, took time.Duration, code int32, rejected bool) {
	no := strconv.FormatBool(rejected)
	m.requests.WithLabelValues(h.name, metricType(mutating), string(op), label(code), no).Inc()
	m.duration.WithLabelValues(h.name, metricType(mutating), string(op), no).Observe(took.Seconds())
}

func (m *metrics) rejected(h *hook, mutating bool, op admission.Operation, why string, code int32) {
	m.rejections.WithLabelValues(h.name, metricType(mutating), string(op), why, label(code)).Inc()
}
