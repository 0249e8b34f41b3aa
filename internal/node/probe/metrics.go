package probe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// Metrics counts what probes found, as the kubelet does at /metrics/probes
// (https://kubernetes.io/docs/reference/instrumentation/metrics/, prober_probe_total and prober_probe_duration_seconds).
type Metrics struct {
	*prometheus.Registry
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics returns metrics of no probe yet.
func NewMetrics() *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "prober_probe_total",
			Help: "Cumulative number of a liveness, readiness or startup probe for a container by result."},
			[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "prober_probe_duration_seconds",
			Help: "Duration in seconds for a probe response."},
			[]string{"probe_type", "container", "pod", "namespace"}),
	}
	m.MustRegister(m.total, m.duration)
	return m
}

// Observe counts one probe of a pod's container. A nil Metrics counts nothing.
func (m *Metrics) Observe(pod *corev1.Pod, container string, k Kind, ok bool, took time.Duration) {
	if m == nil {
		return
	}
	result := "failed"
	if ok {
		result = "successful"
	}
	m.total.WithLabelValues(k.Title(), result, container, pod.Name, pod.Namespace, string(pod.UID)).Inc()
	m.duration.WithLabelValues(k.Title(), container, pod.Name, pod.Namespace).Observe(took.Seconds())
}

// Forget drops what was counted of a pod that is gone.
func (m *Metrics) Forget(pod *corev1.Pod) {
	if m == nil {
		return
	}
	m.total.DeletePartialMatch(prometheus.Labels{"pod_uid": string(pod.UID)})
	m.duration.DeletePartialMatch(prometheus.Labels{"namespace": pod.Namespace, "pod": pod.Name})
}
