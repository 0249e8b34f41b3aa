package policy

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the figures of policies, under Kubernetes' names.
type Metrics struct {
	validations, mutations     *prometheus.CounterVec
	validationTook, mutateTook *prometheus.HistogramVec
}

// NewMetrics returns the figures, to be registered.
func NewMetrics() *Metrics {
	const validating, mutating = "apiserver_validating_admission_policy_check_", "apiserver_mutating_admission_policy_check_"
	labels := []string{"policy", "policy_binding", "error_type"}
	actions := append(labels, "enforcement_action")
	buckets := []float64{0.0000005, 0.001, 0.01, 0.1, 1}
	return &Metrics{
		validations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: validating + "total",
			Help: "Validations that failed or went wrong, by policy, binding and what was done about it."}, actions),
		validationTook: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: validating + "duration_seconds", Buckets: buckets,
			Help: "How long evaluating validations took that failed or went wrong."}, actions),
		mutations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: mutating + "total", Help: "Mutations, by policy and binding."}, labels),
		mutateTook: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: mutating + "duration_seconds", Buckets: buckets,
			Help: "How long mutations took, by policy and binding."}, labels),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(to)
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.validations, m.validationTook, m.mutations, m.mutateTook}
}

func (m *Metrics) validated(o observation) {
	m.validations.WithLabelValues(o.policy, o.binding, o.trouble, o.action).Inc()
	m.validationTook.WithLabelValues(o.policy, o.binding, o.trouble, o.action).Observe(o.took.Seconds())
}

func (m *Metrics) mutated(o observation) {
	m.mutations.WithLabelValues(o.policy, o.binding, o.trouble).Inc()
	m.mutateTook.WithLabelValues(o.policy, o.binding, o.trouble).Observe(o.took.Seconds())
}
