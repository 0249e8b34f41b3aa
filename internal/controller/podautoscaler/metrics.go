package podautoscaler

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/knarr-io/knarr/internal/api"
)

// Metrics are the figures of the autoscalers' controller, under the names and labels that kube-controller-manager gives them
// (https://kubernetes.io/docs/reference/instrumentation/metrics/). They outlive the controller, as a server may lead more than once.
type Metrics struct {
	looks, computed         *prometheus.CounterVec
	looksTook, computedTook *prometheus.HistogramVec
	known                   prometheus.Gauge
	desired                 *prometheus.GaugeVec
}

// NewMetrics returns Metrics that reg shows; a nil reg shows them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const subsystem = "horizontal_pod_autoscaler_controller"
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	of, ofMetric := []string{"action", "error"}, []string{"action", "error", "metric_type"}
	m := &Metrics{
		looks:    prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: subsystem, Name: "reconciliations_total", Help: "Looks at autoscalers."}, of),
		computed: prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: subsystem, Name: "metric_computation_total", Help: "Metrics from which numbers of replicas were computed."}, ofMetric),
		looksTook: prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: subsystem, Name: "reconciliation_duration_seconds",
			Help: "How long a look at an autoscaler took.", Buckets: buckets}, of),
		computedTook: prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: subsystem, Name: "metric_computation_duration_seconds",
			Help: "How long it took to read one metric.", Buckets: buckets}, ofMetric),
		known:   prometheus.NewGauge(prometheus.GaugeOpts{Subsystem: subsystem, Name: "num_horizontal_pod_autoscalers", Help: "Autoscalers that there are."}),
		desired: prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: subsystem, Name: "desired_replicas", Help: "How many replicas an autoscaler wants."}, []string{"namespace", "hpa_name"}),
	}
	if reg != nil {
		reg.MustRegister(m.looks, m.computed, m.looksTook, m.computedTook, m.known, m.desired)
	}
	return m
}

// Labels of what a look came to.
const (
	scaleUp, scaleDown, none = "scale_up", "scale_down", "none"
	badSpec, internal        = "spec", "internal"
)

// direction names the step from one number of replicas to another.
func direction(from, to int32) string {
	switch {
	case to > from:
		return scaleUp
	case to < from:
		return scaleDown
	}
	return none
}

// specError is an error of what an autoscaler says.
type specError struct{ error }

func (e *specError) Unwrap() error { return e.error }

// blame says whose fault an error is: the autoscaler's own, or what it needs was not to be had.
func blame(err error) string {
	var wrong *specError
	switch {
	case err == nil:
		return none
	case errors.As(err, &wrong):
		return badSpec
	}
	return internal
}

// looked notes a look at hpa, which found obs and did what act says.
func (m *Metrics) looked(hpa *autoscalingv2.HorizontalPodAutoscaler, obs observed, act actions, took time.Duration) {
	action := none
	if act.Rescale {
		action = direction(act.From, act.To)
	}
	m.looks.WithLabelValues(action, blame(act.Failed)).Inc()
	m.looksTook.WithLabelValues(action, blame(act.Failed)).Observe(took.Seconds())
	for _, c := range act.Computed {
		labels := []string{c.action, blame(c.err), string(c.kind)}
		m.computed.WithLabelValues(labels...).Inc()
		if c.i < len(obs.readings) {
			m.computedTook.WithLabelValues(labels...).Observe(obs.readings[c.i].took.Seconds())
		}
	}
	if obs.scale != nil {
		m.desired.WithLabelValues(hpa.Namespace, hpa.Name).Set(float64(act.To))
	}
}

// forgotten notes that an autoscaler is gone.
func (m *Metrics) forgotten(key api.Key) { m.desired.DeleteLabelValues(key.Namespace, key.Name) }
