package guard

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the guard's figures.
type metrics struct {
	policies    prometheus.Gauge
	failures    prometheus.Counter
	writing     prometheus.Histogram
	programming prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	steps := prometheus.ExponentialBuckets(0.0005, 2, 15)
	return &metrics{
		policies: auto.NewGauge(prometheus.GaugeOpts{Name: "knarr_network_policies", Help: "NetworkPolicies in force."}),
		failures: auto.NewCounter(prometheus.CounterOpts{Name: "knarr_network_policy_failures_total", Help: "Transactions that the kernel refused."}),
		writing: auto.NewHistogram(prometheus.HistogramOpts{Name: "knarr_network_policy_transaction_duration_seconds",
			Help: "How long writing changed rules took.", Buckets: steps}),
		programming: auto.NewHistogram(prometheus.HistogramOpts{Name: "knarr_network_policy_programming_duration_seconds",
			Help: "From the moment that a change of a policy, namespace or pod was heard of to the rules that have it.", Buckets: steps}),
	}
}

// wrote records one transaction, which began at start.
func (m *metrics) wrote(start time.Time, err error) {
	m.writing.Observe(time.Since(start).Seconds())
	if err != nil {
		m.failures.Inc()
	}
}
